"""A classifier that recognises samples and finds copies of training images."""

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.evaluation.recognition import recognise


def test_real_digits_are_recognised_and_are_no_copies_of_themselves(digits: Images) -> None:
    assert digits.labels is not None
    half = Images(digits.pixels[::2], digits.labels[::2], digits.classes)
    result = recognise(half, Images(digits.pixels[1::2]))
    assert result.generated == pytest.approx(result.real, abs=0.02)
    assert 0 < result.copies < 0.05


def test_copies_noise_and_a_single_class_are_detected(digits: Images) -> None:
    copies = recognise(digits, Images(digits.pixels[:100]))
    assert copies.copies == 1
    grey = Images(torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8))
    assert recognise(digits, grey).copies == 0
    one_class = recognise(digits, Images(digits.pixels[digits.labels == 3]))
    assert max(one_class.shares) == one_class.shares[3] > 0.95
