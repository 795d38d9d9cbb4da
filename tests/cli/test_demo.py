"""The demo as it is shipped: samples that a classifier recognises, of all classes, and no
copies."""

from pathlib import Path

import pytest
import torch

from multistage_diffusion.cli import main
from multistage_diffusion.data import Images, load
from multistage_diffusion.evaluation.recognition import recognise


def test_real_digits_are_recognised_and_are_no_copies_of_themselves(digits: Images) -> None:
    assert digits.labels is not None
    half = Images(digits.pixels[::2], digits.labels[::2], digits.classes)
    found = recognise(half, Images(digits.pixels[1::2]))
    assert found.generated == pytest.approx(found.real, abs=0.02)
    assert 0 < found.copies < 0.05


def test_copies_and_noise_are_seen_through(digits: Images) -> None:
    copies = recognise(digits, Images(digits.pixels[:100]))
    assert copies.copies == 1
    grey = Images(torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8))
    assert recognise(digits, grey).copies == 0
    one_class = recognise(digits, Images(digits.pixels[digits.labels == 3]))
    assert max(one_class.shares) == one_class.shares[3] > 0.95


@pytest.mark.slow
def test_the_demo_makes_digits(digits: Images, tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    samples = load(tmp_path / "demo" / "samples")
    found = recognise(digits, samples)
    assert len(samples) == 500
    assert abs(found.generated - found.real) < 0.05
    assert all(0.04 <= share <= 0.20 for share in found.shares)
    assert found.copies < 0.05
