import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multistage_diffusion.data.augment import (
    LABELS,
    _rotation,
    _scaling,
    _taps,
    _transformed,
    _translation,
    augment,
)


def smooth(count: int = 3, size: int = 16) -> Tensor:
    """Random images without fine detail, which every resampler preserves."""
    coarse = torch.randn(count, 3, 5, 5)
    fine = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return fine.clamp(-1, 1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_identity_returns_the_images() -> None:
    images = torch.rand(3, 3, 16, 12) * 2 - 1
    unchanged = _transformed(images, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(unchanged, images, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -2), (-5, 4)])
def test_a_shift_by_whole_pixels_is_exact_and_continues_by_reflection(x: int, y: int) -> None:
    images = torch.rand(1, 1, 16, 16) * 2 - 1
    shift = _translation(torch.tensor([float(x)]), torch.tensor([float(y)]))
    padded = F.pad(images, (8, 8, 8, 8), mode="reflect")
    expected = padded[:, :, 8 + y : 24 + y, 8 + x : 24 + x]
    torch.testing.assert_close(_transformed(images, shift), expected, rtol=0, atol=1e-4)


def test_a_rotation_by_a_right_angle_rotates_smooth_images() -> None:
    images = smooth()
    rotated = _transformed(images, _rotation(torch.full((3,), math.pi / 2)))
    error = (rotated - images.rot90(1, (2, 3))).abs()
    assert float(error.max()) < 0.25
    assert float(error.mean()) < 0.02


def test_scaling_up_and_down_cancel_in_the_middle() -> None:
    images = smooth(size=24)
    one = torch.full((3,), 0.3)
    there = _transformed(images, _scaling(-one, -one))
    back = _transformed(there, _scaling(one, one))
    assert float((back - images)[:, :, 8:16, 8:16].abs().mean()) < 0.03


def test_with_probability_zero_images_are_only_mirrored() -> None:
    images = smooth(64, 8)
    augmented, labels = augment(images, 0.0, source())
    assert labels.shape == (64, LABELS)
    assert not labels[:, 1:].any()
    mirrored = labels[:, 0] == 1
    assert 16 < int(mirrored.sum()) < 48
    expected = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    assert torch.equal(augmented, expected)


def test_labels_have_the_moments_of_their_distributions() -> None:
    """At probability 1, each mirroring is drawn for half of the images; scale, stretch and shifts
    are unit Gaussians, angles uniform.
    """
    _, labels = augment(torch.zeros(4000, 1, 2, 2), 1.0, source())
    mirror, inverted, scale, cosine, sine, along, across, x, y = labels.T
    for half in (mirror, inverted):
        assert float(half.mean()) == pytest.approx(0.5, abs=0.04)
    for normal in (scale, x, y):
        assert float(normal.mean()) == pytest.approx(0, abs=0.08)
        assert float(normal.std()) == pytest.approx(1, abs=0.05)
    torch.testing.assert_close((cosine + 1) ** 2 + sine**2, torch.ones_like(sine))
    assert float((along**2 + across**2).mean()) == pytest.approx(1, abs=0.1)


def test_each_transformation_has_its_probability() -> None:
    _, labels = augment(torch.zeros(4000, 1, 2, 2), 0.12, source())
    changed = [labels[:, 2] != 0, labels[:, 4] != 0, labels[:, 5:7].any(1), labels[:, 7:9].any(1)]
    for happened in changed:
        assert float(happened.float().mean()) == pytest.approx(0.12, abs=0.02)


def test_an_image_does_not_depend_on_the_others() -> None:
    images = smooth(4)
    rotation = _rotation(torch.tensor([0.3]))
    scaling = _scaling(torch.tensor([0.5]), torch.tensor([-0.5]))
    back = torch.cat([rotation, scaling]).repeat(2, 1, 1)
    together = _transformed(images, back)
    torch.testing.assert_close(together[1:2], _transformed(images[1:2], back[1:2]))


def test_the_filter_is_made_once() -> None:
    first, second = (_taps(torch.zeros(2, 3, 4, 4)) for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    assert first.shape == (3, 1, 1, 12)
