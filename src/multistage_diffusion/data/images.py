"""A data set of images, decoded once and kept as uint8."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.errors import BadInput

__all__ = ["Images", "to_pixels", "to_unit_range"]

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Images:
    """Images of one size, with labels if the source has any.

    Raises:
        BadInput: if there are no images.
    """

    pixels: Tensor | MappedRows
    """uint8 ``[N, C, H, W]``, values 0 to 255; or floating point, the latents of an autoencoder."""
    labels: Tensor | None = None
    """Class of each image, int64 ``[N]``."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty without labels."""
    source: str = ""
    """Where the images came from."""
    notes: tuple[str, ...] = ()
    """What was done to them as they were read, in words."""
    skipped: tuple[str, ...] = ()
    """Images that were left out since they could not be decoded, each with the reason."""

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

    def at(self, rows: Tensor) -> "Images":
        """Some of the images, or all in another order: ``rows`` is int64 ``[n]`` or bool ``[N]``."""
        pixels = self.pixels.at(rows) if isinstance(self.pixels, MappedRows) else self.pixels[rows]
        return replace(
            self, pixels=pixels, labels=None if self.labels is None else self.labels[rows]
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of shape, pixels and labels: equal for equal data in equal order, wherever it came from."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for block in self.blocks():
            digest.update(block.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @property
    def latent(self) -> bool:
        """Whether these are latents, taken as they are, and not pixels."""
        return self.pixels.dtype != torch.uint8

    def blocks(self) -> Iterator[Tensor]:
        """The images some at a time, in order: ``[n, C, H, W]``."""
        rows = max(1, BLOCK_BYTES // (math.prod(self.shape) * self.pixels.dtype.itemsize))
        for start in range(0, len(self), rows):
            yield self.pixels[start : start + rows]

    @cached_property
    def mean(self) -> Tensor:
        """The mean image in the range networks work in, float64 ``[C, H, W]``."""
        total = torch.stack([block.sum(0, dtype=torch.float64) for block in self.blocks()]).sum(0)
        return total / len(self) if self.latent else total / len(self) / 127.5 - 1

    @cached_property
    def standard_deviation(self) -> float:
        """Standard deviation over all values in the range networks work in: EDM's ``sigma_data``."""
        if not self.latent:
            return self._of_counts()
        mean = self.mean.mean()
        squares = sum(
            (to_unit_range(block, torch.float64) - mean).square().sum() for block in self.blocks()
        )
        return float((squares / (len(self) * math.prod(self.shape))) ** 0.5)

    def _of_counts(self) -> float:
        """The standard deviation of bytes, by how often each occurs."""
        counts = torch.zeros(256, dtype=torch.int64)
        for block in self.blocks():
            counts += block.flatten().bincount(minlength=256)
        shares = counts.double() / counts.sum()
        values = to_unit_range(torch.arange(256, dtype=torch.uint8), torch.float64)
        return float((shares @ (values - shares @ values).square()) ** 0.5)


def to_unit_range(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes 0..255 as numbers -1..1, the range networks work in; floating point values are in their range already."""
    values = pixels.to(dtype)
    return values if pixels.is_floating_point() else values / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Values -1..1 as uint8, rounded and clipped: the inverse of ``to_unit_range``."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
