"""A data set of images, decoded once and kept as uint8."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["Images"]


@dataclass(frozen=True)
class Images:
    """Images of one size, with labels if the source has any.

    Raises:
        BadInput: if there are no images.
    """

    pixels: Tensor
    """uint8 ``[N, C, H, W]``, values 0 to 255."""
    labels: Tensor | None = None
    """Class of each image, int64 ``[N]``."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty without labels."""
    source: str = ""
    """Where the images came from."""

    def __post_init__(self) -> None:
        if len(self.pixels) == 0:
            raise BadInput(f"{self.source or 'The data set'} holds no images.")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """A hash of shape, pixels and labels: equal for equal data in equal order, wherever it came from."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @cached_property
    def standard_deviation(self) -> float:
        """Standard deviation over all values in the range -1 to 1: EDM's ``sigma_data``."""
        counts = torch.bincount(self.pixels.flatten().int(), minlength=256).double()
        values = to_unit_range(torch.arange(256, dtype=torch.float64))
        mean = (counts * values).sum() / counts.sum()
        return float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt())


def to_unit_range(pixels: Tensor) -> Tensor:
    """Values 0..255 as floating point -1..1, the range networks work in; float32 for uint8."""
    values = pixels if pixels.is_floating_point() else pixels.float()
    return values / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Values -1..1 as uint8, rounded and clipped: the inverse of ``to_unit_range``."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
