from pathlib import Path

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.training import train
from multistage_diffusion.training.precision import PrecisionName, is_emulated
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


@pytest.mark.parametrize(
    ("precision", "units", "emulated"),
    [("bf16", False, True), ("bf16", True, False), ("float32", False, False)],
)
def test_only_bf16_without_units_for_it_is_emulated(
    precision: PrecisionName, units: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: units)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    assert is_emulated(precision) == emulated
