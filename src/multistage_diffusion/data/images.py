"""A data set of images, decoded once and kept as uint8."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.data.sources.left_out import LeftOut
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.errors import BadInput
from multistage_diffusion.space import LatentConfig, Space, space_of

__all__ = ["Images", "evenly_spaced"]

BLOCK_BYTES = 16 << 20


def evenly_spaced(total: int, count: int | None) -> Tensor:
    """Indices of at most ``count`` of ``total`` images, evenly spaced, int64; all for None."""
    wanted = min(count or total, total)
    return torch.linspace(0, total - 1, wanted, dtype=torch.float64).round().long()


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
    """Names of the classes that occur; empty without labels."""
    source: str = ""
    """Where the images came from."""
    notes: tuple[str, ...] = ()
    """Messages about what was done to them as they were read."""
    skipped: tuple[str, ...] = ()
    """Images that were left out because they could not be decoded, each with the reason."""
    original: "Listing | Images | None" = field(default=None, repr=False, compare=False)
    """The same images in the same order before they were decoded or resized, if these are all of
    a source."""
    class_numbers: tuple[int, ...] = ()
    """The number that each class has in the data; empty if they count from 0."""
    left_out: tuple[LeftOut, ...] = ()
    """Files and images of the source that are not read, except ``skipped``."""

    resized: int = 0
    """How many images were resized."""
    latents: LatentConfig | None = None
    """How latents were made and normalised, if that is known."""
    mirrored: Tensor | MappedRows | None = field(default=None, repr=False)
    """Latents of the same images mirrored left-right, which are not mirrored latents."""
    context: Tensor | None = field(default=None, repr=False)
    """What networks attend to for each image, ``[N, tokens, channels]``."""

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

    @property
    def space(self) -> Space:
        """What the stored values mean: pixels, or the latents of an autoencoder."""
        return space_of(self.pixels.dtype)

    def at(self, rows: Tensor) -> "Images":
        """A selection of the images, or all of them in another order.

        Args:
            rows: indices, int64 ``[n]``, or a mask, bool ``[N]``.
        """
        labels = None if self.labels is None else self.labels[rows]
        mirrored = None if self.mirrored is None else _selected(self.mirrored, rows)
        chosen = replace(self, pixels=_selected(self.pixels, rows), labels=labels, original=None)
        context = None if self.context is None else self.context[rows]
        return replace(chosen, mirrored=mirrored, context=context)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of shape, pixels and labels: equal for equal data in equal order."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        for block in self.blocks():
            digest.update(block.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def blocks(self) -> Iterator[Tensor]:
        """The stored images in order, a block at a time: ``[n, C, H, W]``."""
        image_bytes = math.prod(self.shape) * self.pixels.dtype.itemsize
        rows = max(1, BLOCK_BYTES // image_bytes)
        for start in range(0, len(self), rows):
            yield self.pixels[start : start + rows]

    @cached_property
    def mean(self) -> Tensor:
        """The mean image in the range networks work in, float64 ``[C, H, W]``."""
        sums = [block.sum(0, dtype=torch.float64) for block in self.blocks()]
        total = torch.stack(sums).sum(0)
        return self.space.encode(total / len(self), torch.float64)

    @cached_property
    def standard_deviation(self) -> float:
        """Standard deviation of all values in the range networks work in: EDM's ``sigma_data``."""
        if self.space.levels is not None:
            return self._deviation_of_counts(self.space.levels)
        return self._deviation_of_values()

    def _deviation_of_counts(self, levels: int) -> float:
        """The standard deviation from how often each of the values that can be stored occurs."""
        counts = torch.zeros(levels, dtype=torch.int64)
        for block in self.blocks():
            counts += block.flatten().bincount(minlength=levels)
        shares = counts.double() / counts.sum()
        values = self.space.encode(torch.arange(levels), torch.float64)
        mean = shares @ values
        return float((shares @ (values - mean).square()) ** 0.5)

    def _deviation_of_values(self) -> float:
        mean = self.mean.mean()
        values = (self.space.encode(block, torch.float64) for block in self.blocks())
        squares = sum((block - mean).square().sum() for block in values)
        return float((squares / (len(self) * math.prod(self.shape))) ** 0.5)


def _selected(stored: Tensor | MappedRows, rows: Tensor) -> Tensor | MappedRows:
    return stored.at(rows) if isinstance(stored, MappedRows) else stored[rows]
