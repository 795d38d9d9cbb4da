import pytest

from multistage_diffusion.data import ReadOptions
from multistage_diffusion.errors import BadInput


@pytest.mark.parametrize("size", [(0,), (8, 8, 3), (-1, 4)])
def test_a_size_is_one_or_two_positive_numbers(size: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="size"):
        ReadOptions(size=size)
