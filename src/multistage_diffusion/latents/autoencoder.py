"""What an autoencoder is: a pair of maps between images and smaller arrays, their latents.

To add one, derive a class from ``Autoencoder`` and let ``find_autoencoder`` return it.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.space import PIXELS, AutoencoderInfo

__all__ = ["Autoencoder", "Posterior", "decode", "encode"]

CHUNK_PIXELS = 1 << 20  # of images that are encoded or decoded at once


class Posterior(NamedTuple):
    """The latents of images: a mean, and a standard deviation if the encoder is random."""

    mean: Tensor
    deviation: Tensor | None


class Autoencoder(ABC):
    """A pair of maps between images and latents."""

    info: AutoencoderInfo
    """What identifies it."""
    image_channels: int
    """Channels of the images: 1 (grey) or 3 (colour)."""
    lossless: bool = False
    """Whether decoding gives the image back, up to the rounding of floating-point numbers."""

    @abstractmethod
    def encode(self, images: Tensor) -> Posterior:
        """Latents, ``[B, c, H / factor, W / factor]``, of images, -1 to 1, ``[B, C, H, W]``."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images, about -1 to 1, of latents: the inverse of ``encode``, as far as there is one."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "Autoencoder":
        """Moves its weights to a device, and returns it."""

    def check(self, shape: tuple[int, int, int]) -> None:
        """Checks that images of a shape can be encoded.

        Raises:
            BadInput: if they have other channels or their sides are no multiples of the factor.
        """
        channels, height, width = shape
        name, factor = self.info.name, self.info.factor
        if channels != self.image_channels:
            raise BadInput(
                f"The autoencoder {name} is for images with {self.image_channels} channels, the "
                f"data has {channels}: choose another one."
            )
        if height % factor or width % factor:
            raise BadInput(
                f"The autoencoder {name} makes images {factor} times smaller, and {height}x{width} "
                f"are no multiples of {factor}; give --size."
            )


@torch.no_grad()
def encode(autoencoder: Autoencoder, pixels: Tensor) -> Posterior:
    """The latents of stored images, uint8 ``[B, C, H, W]``, a bounded number of them at a time."""
    rows = _rows_at_once(pixels.shape[2] * pixels.shape[3])
    parts = [autoencoder.encode(PIXELS.encode(part)) for part in pixels.split(rows)]
    mean = torch.cat([part.mean for part in parts])
    deviations = [part.deviation for part in parts if part.deviation is not None]
    return Posterior(mean, torch.cat(deviations) if deviations else None)


@torch.no_grad()
def decode(autoencoder: Autoencoder, latents: Tensor) -> Tensor:
    """The images of raw latents, uint8 ``[B, C, H, W]``, a bounded number of them at a time."""
    factor = autoencoder.info.factor
    rows = _rows_at_once(latents.shape[2] * latents.shape[3] * factor**2)
    parts = [PIXELS.decode(autoencoder.decode(part)) for part in latents.split(rows)]
    return torch.cat(parts)


def _rows_at_once(pixels: int) -> int:
    return max(1, CHUNK_PIXELS // pixels)
