"""Spaces: maps from stored values to the values that networks work on, and back.

In ``PIXELS``, files hold bytes 0 to 255 and networks see -1 to 1. In ``LATENTS``, files hold the
output of an autoencoder as floating point, and networks see these values unchanged. Whatever
depends on the difference asks the space of the images (``Images.space``), not their dtype.

Which autoencoder made latents, and how their channels were normalised before a network sees them,
is a ``LatentConfig``; a model file of a latent model holds one. A model without it works on pixels,
which is the identity case.

To add a space, derive a class from ``Space`` and let ``space_of`` or ``Images.space`` return it.
"""

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput

__all__ = [
    "LATENTS",
    "PIXELS",
    "AutoencoderInfo",
    "LatentConfig",
    "Space",
    "space_of",
    "to_pixels",
    "to_unit_range",
]

HALF_RANGE = 127.5


class Space(ABC):
    """A map from stored values to the values that networks work on, and its inverse."""

    contents: ClassVar[str]
    """The word for the stored values in messages, in the plural."""
    unit: ClassVar[float]
    """Length, in the range of the network, of the unit that clustering gives sigma and eta in."""
    levels: ClassVar[int | None]
    """Number of different values that can be stored, if few enough to count each, else None."""
    stores_pixels: ClassVar[bool]
    """Whether stored values are pixels, which can be resampled and shown."""
    decodes_to_pixels: ClassVar[bool]
    """Whether ``decode`` returns pixels, so that samples of a network are images."""

    @abstractmethod
    def encode(self, stored: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Stored values as those a network works on, in ``dtype``."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """Values of a network as they would be stored: the inverse of ``encode``."""


@final
class PixelSpace(Space):
    """Bytes 0 to 255, which networks see as -1 to 1."""

    contents = "images"
    unit = 2.0  # the algorithm counts in the range [0, 1]
    levels = 256
    stores_pixels = True
    decodes_to_pixels = True

    def encode(self, stored: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return stored.to(dtype) / HALF_RANGE - 1

    def decode(self, values: Tensor) -> Tensor:
        """Bytes, rounded and clipped."""
        return ((values + 1) * HALF_RANGE).round().clamp(0, 255).to(torch.uint8)


@final
class LatentSpace(Space):
    """Floating-point values without a natural range, which networks see unchanged."""

    contents = "latents"
    unit = 1.0
    levels = None
    stores_pixels = False
    decodes_to_pixels = False

    def encode(self, stored: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return stored.to(dtype)

    def decode(self, values: Tensor) -> Tensor:
        return values


@dataclass(frozen=True, kw_only=True)
class AutoencoderInfo(Settings):
    """What identifies an autoencoder, and enough to find it again."""

    name: str
    """A built-in one such as ``pca-f2c6`` or ``identity``, a folder, or an id on the hub."""
    fingerprint: str
    """A hash of its architecture and weights."""
    factor: int = setting(MISSING, at_least=1, at_most=1024)
    """How many times smaller latents are than images, a side."""
    channels: int = setting(MISSING, at_least=1, at_most=65_536)
    """Channels of its latents."""
    revision: str = ""
    """Revision on the hub."""
    weights: str = ""
    """Weights in base64, of those small enough to be kept with the latents and the model."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig(Settings):
    """How images become the values of a network: ``(encoder(image) - shift) * scale``."""

    autoencoder: AutoencoderInfo
    image_shape: tuple[int, int, int] = setting(MISSING, at_least=1, at_most=65_536)
    """Channels, height, width of the images."""
    shift: tuple[float, ...] = setting(MISSING)
    """Of each channel; zeros for raw latents."""
    scale: tuple[float, ...] = setting(MISSING, above=0)
    """Of each channel; ones for raw latents."""
    deviation: float = setting(MISSING, above=0)
    """Standard deviation of the values that a network sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.autoencoder.channels
        if not len(self.shift) == len(self.scale) == channels:
            raise BadInput(f"The settings shift and scale need a number for {channels} channels.")


PIXELS = PixelSpace()
LATENTS = LatentSpace()


def space_of(dtype: torch.dtype) -> Space:
    """The space of values that are stored in ``dtype``: floating point for latents."""
    return LATENTS if dtype.is_floating_point else PIXELS


def to_unit_range(stored: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Stored values in the range networks work in: bytes as -1 to 1, floating point unchanged."""
    return space_of(stored.dtype).encode(stored, dtype)


def to_pixels(images: Tensor) -> Tensor:
    """Values -1 to 1 as uint8, rounded and clipped: the inverse of ``to_unit_range``."""
    return PIXELS.decode(images)
