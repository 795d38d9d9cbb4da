from pathlib import Path

import torch

from multistage_diffusion.data import Images
from multistage_diffusion.training import train
from tests.conftest import run_on


def rounding() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_the_precision_of_a_run_ends_with_it(few_digits: Images, tmp_path: Path) -> None:
    """Also where the caller stops listening."""
    before = rounding()
    config = run_on(few_digits, precision="tf32")
    running = train(config, few_digits, tmp_path / "run")
    next(running)
    assert rounding() == ("high", True)
    running.close()
    assert rounding() == before
    list(train(config, few_digits, tmp_path / "run"))
    assert rounding() == before
