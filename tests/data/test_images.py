from pathlib import Path

import pytest
import torch

from multistage_diffusion.data import Images, load, to_unit_range


def test_the_fingerprint_depends_on_the_content_only(folder: Path, digits: Images) -> None:
    images = load(folder)
    pixels = images.pixels[:]
    again = Images(pixels.clone(), images.labels, images.classes, "elsewhere")
    assert again.fingerprint == images.fingerprint
    assert Images(images.pixels).fingerprint != images.fingerprint
    assert Images(pixels.flip(0), images.labels).fingerprint != images.fingerprint
    assert Images(pixels.reshape(12, 3, 4, 16)).fingerprint != Images(pixels).fingerprint
    assert digits.fingerprint == "ac2213023a1dd19f"


def test_the_standard_deviation_is_that_of_the_values(digits: Images) -> None:
    expected = float(to_unit_range(digits.pixels[:], torch.float64).std(correction=0))
    assert digits.standard_deviation == pytest.approx(expected, rel=1e-9)


def test_the_mean_is_that_of_the_values(digits: Images) -> None:
    expected = to_unit_range(digits.pixels[:], torch.float64).mean(0)
    torch.testing.assert_close(digits.mean, expected)
