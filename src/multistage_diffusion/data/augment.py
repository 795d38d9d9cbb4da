"""EDM's geometric augmentation, which does not leak into samples.

Karras et al. 2022, appendix F.2; Karras et al. 2020. Each image is mirrored, scaled, rotated,
stretched and shifted at random, each with the same probability, and the network is given labels
that tell what was done. Images are resampled at twice their size between the low-pass filters of
the sym6 wavelet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LABELS", "Augmentation", "augment", "draw_augmentation", "mirror"]

LABELS = 9
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263748278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
SCALE_STD = 0.2  # of log2 of a scale
STRETCH_STD = 0.2  # of log2 of a scale
SHIFT_STD = 0.125  # as a share of the size
ROUNDING = 1e-5  # left over by rotations there and back


@dataclass(frozen=True)
class Augmentation:
    """What to do to each image of a batch."""

    labels: Tensor
    """What the network is given, ``[B, LABELS]``: mirrored, upside down, log2 of the scale over
    ``SCALE_STD``, cosine - 1 and sine of the angle, the stretch along two axes, and the shift in
    both directions over ``SHIFT_STD``."""
    back: Tensor
    """Where each pixel of the result comes from, ``[B, 3, 3]``, in pixels from the middle."""

    def __getitem__(self, here: slice | Tensor) -> "Augmentation":
        return Augmentation(self.labels[here], self.back[here])

    def apply(self, images: Tensor) -> Tensor:
        """The augmented images, ``[B, C, H, W]``, on their device."""
        images = mirror(images, self.labels[:, 0] == 1)
        images = mirror(images, self.labels[:, 1] == 1, axis=2)
        changed = (self.back - torch.eye(3)).abs().amax((1, 2)) > ROUNDING
        where = changed.nonzero()[:, 0].to(images.device, non_blocking=images.is_cuda)
        if len(where) == 0:
            return images
        return images.index_copy(0, where, _transformed(images[where], self.back[changed]))


def mirror(images: Tensor, which: Tensor, axis: int = 3) -> Tensor:
    """Mirrors some images: ``which`` is bool ``[B]``."""
    mask = which.to(images.device, non_blocking=images.is_cuda)
    return torch.where(mask[:, None, None, None], images.flip(axis), images)


def augment(images: Tensor, probability: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augments a batch.

    Args:
        images: ``[B, C, H, W]``, -1 to 1.
        probability, draw: as for ``draw_augmentation``.

    Returns:
        The augmented images, and what was done to them, ``[B, LABELS]``.
    """
    drawn = draw_augmentation(len(images), images.shape[2:], probability, draw)
    return drawn.apply(images), drawn.labels


def draw_augmentation(
    count: int, size: Sequence[int], probability: float, draw: torch.Generator
) -> Augmentation:
    """Draws what to do to ``count`` images.

    Args:
        count: number of images.
        size: their height and width.
        probability: of each transformation except mirroring left-right, whose probability is 1/2.
        draw: source of randomness, on the CPU.
    """

    def sometimes(values: Tensor) -> Tensor:
        return values * (torch.rand(count, generator=draw) < probability)

    def normal() -> Tensor:
        return torch.randn(count, generator=draw)

    def angle() -> Tensor:
        return (2 * torch.rand(count, generator=draw) - 1) * math.pi

    # Runs depend on the order of these draws
    mirrored = torch.randint(2, (count,), generator=draw).float()
    inverted = sometimes(torch.randint(2, (count,), generator=draw).float())
    scale = sometimes(normal())
    turn = sometimes(angle())
    stretch = sometimes(normal())
    axis = angle()
    axis = axis * (torch.rand(count, generator=draw) < 0.5)
    moved = torch.rand(count, generator=draw) < probability
    shifts = (normal() * moved, normal() * moved)
    rotated = [turn.cos() - 1, turn.sin()]
    stretched = [stretch * axis.cos(), stretch * axis.sin()]
    labels = torch.stack([mirrored, inverted, scale, *rotated, *stretched, *shifts], 1)
    return Augmentation(labels, _back(scale, turn, stretch, axis, shifts, size))


def _back(
    scale: Tensor,
    turn: Tensor,
    stretch: Tensor,
    axis: Tensor,
    shifts: tuple[Tensor, Tensor],
    size: Sequence[int],
) -> Tensor:
    """Where each pixel comes from, ``[B, 3, 3]``: the inverse of the transformations."""
    height, width = size
    back = _scaling(-SCALE_STD * scale, -SCALE_STD * scale) @ _rotation(turn)
    along = _scaling(-STRETCH_STD * stretch, STRETCH_STD * stretch)
    back = back @ _rotation(-axis) @ along @ _rotation(axis)
    x_shift, y_shift = shifts
    return back @ _translation(-SHIFT_STD * width * x_shift, -SHIFT_STD * height * y_shift)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    """Scales by 2 to the power of ``x`` and ``y``."""
    zero = torch.zeros_like(x)
    one = torch.ones_like(x)
    return _matrix([[x.exp2(), zero, zero], [zero, y.exp2(), zero], [zero, zero, one]])


def _rotation(angle: Tensor) -> Tensor:
    zero = torch.zeros_like(angle)
    one = torch.ones_like(angle)
    cosine = angle.cos()
    sine = angle.sin()
    return _matrix([[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]])


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    one = torch.ones_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _transformed(images: Tensor, back: Tensor) -> Tensor:
    """The images, continued by their reflection, at the positions ``back`` moves pixels to.

    Args:
        images: ``[B, C, H, W]``.
        back: ``[B, 3, 3]``, from pixels of the result to pixels of the image, both counted from
            the middle.
    """
    height, width = images.shape[2:]
    margins = (width - 1, width - 1, height - 1, height - 1)
    large = _doubled(F.pad(images, margins, mode="reflect"))
    rim = len(SYM6) // 4
    out_height = 2 * (height + 2 * rim)
    out_width = 2 * (width + 2 * rim)
    moves = _to_unit(large.shape[2], large.shape[3]) @ _on_doubled(back)
    moves = moves @ _to_unit(out_height, out_width, inverse=True)
    affine = moves[:, :2].to(large, non_blocking=images.is_cuda)
    grid = F.affine_grid(affine, [len(images), 1, out_height, out_width], align_corners=False)
    return _halved(F.grid_sample(large, grid, align_corners=False), rim)


def _on_doubled(back: Tensor) -> Tensor:
    """``back`` on the doubled grid, whose samples are half a pixel off."""
    half = torch.tensor(-0.5)
    doubled = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    return (
        _translation(half, half) @ doubled @ back @ doubled.inverse() @ _translation(-half, -half)
    )


def _to_unit(height: int, width: int, inverse: bool = False) -> Tensor:
    """From pixels counted from the middle to the coordinates -1 to 1 of ``grid_sample``."""
    if inverse:
        return torch.diag(torch.tensor([width / 2, height / 2, 1.0]))
    return torch.diag(torch.tensor([2 / width, 2 / height, 1.0]))


def _taps(images: Tensor) -> Tensor:
    """The filter for each channel, ``[C, 1, 1, taps]``."""
    return _filter(images.device, images.dtype).expand(images.shape[1], 1, 1, -1)


@lru_cache(maxsize=8)
def _filter(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The filter on a device, where it is copied once."""
    return torch.tensor(SYM6, device=device, dtype=dtype)


def _doubled(images: Tensor) -> Tensor:
    """Twice the size: zeros between rows and columns, then the reversed filter."""
    count, channels, height, width = images.shape
    taps = _taps(images).flip(3)
    pad = (len(SYM6) + 1) // 2
    spread = images.new_zeros(count, channels, 2 * height - 1, 2 * width - 1)
    spread[:, :, ::2, ::2] = images
    across = F.conv2d(spread, taps, padding=(0, pad), groups=channels)
    return F.conv2d(across, taps.transpose(2, 3), padding=(pad, 0), groups=channels)


def _halved(images: Tensor, rim: int) -> Tensor:
    """Half the size, without a rim: the filter, then every second row and column."""
    channels = images.shape[1]
    taps = _taps(images)
    pad = (len(SYM6) - 1) // 2
    across = F.conv2d(images, taps, stride=(1, 2), padding=(0, pad), groups=channels)
    across = across[..., rim:-rim]
    both = F.conv2d(across, taps.transpose(2, 3), stride=(2, 1), padding=(pad, 0), groups=channels)
    return both[:, :, rim:-rim]
