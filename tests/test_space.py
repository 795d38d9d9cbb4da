import torch
from hypothesis import given
from hypothesis import strategies as st

from multistage_diffusion.space import LATENTS, PIXELS, space_of, to_pixels, to_unit_range


@given(st.integers(0, 255))
def test_pixels_are_mapped_to_minus_one_to_one_and_back(value: int) -> None:
    pixels = torch.tensor([value], dtype=torch.uint8)
    assert to_pixels(to_unit_range(pixels)).tolist() == [value]
    assert -1 <= float(to_unit_range(pixels)) <= 1
    assert torch.equal(PIXELS.encode(pixels), to_unit_range(pixels))


def test_values_out_of_range_are_clipped() -> None:
    assert to_pixels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_the_unit_of_pixels_is_their_whole_range() -> None:
    black, white = PIXELS.encode(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    assert white - black == PIXELS.unit


def test_latents_are_unchanged() -> None:
    values = torch.randn(3, 4)
    assert torch.equal(LATENTS.encode(values), values)
    assert torch.equal(LATENTS.decode(values), values)
    assert torch.equal(to_unit_range(values.half(), torch.float64), values.half().double())


def test_the_dtype_tells_the_space() -> None:
    assert space_of(torch.uint8) is PIXELS
    assert space_of(torch.float16) is LATENTS
    assert space_of(torch.float32) is LATENTS
