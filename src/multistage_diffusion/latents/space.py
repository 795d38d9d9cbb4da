"""The space of a latent model: an autoencoder turns the values of its network into pixels."""

from typing import final

import torch
from torch import Tensor

from multistage_diffusion.latents.autoencoder import Autoencoder, decode
from multistage_diffusion.latents.find import load_autoencoder
from multistage_diffusion.space import PIXELS, LatentConfig, Space

__all__ = ["AutoencoderSpace", "space_of_model"]


@final
class AutoencoderSpace(Space):
    """Normalised latents, which decode to pixels. The autoencoder is loaded when it is needed.

    Args:
        config: autoencoder and normalisation.
    """

    contents = "latents"
    unit = 1.0
    levels = None
    stores_pixels = False
    decodes_to_pixels = True

    def __init__(self, config: LatentConfig) -> None:
        self.config = config

    def encode(self, stored: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalised latents of raw ones."""
        shift, scale = self._normalisation(stored.to(dtype))
        return (stored.to(dtype) - shift) * scale

    def decode(self, values: Tensor) -> Tensor:
        """Images, uint8, of normalised latents ``[B, c, h, w]``; some of them at a time.

        Raises:
            BadInput: if the autoencoder has changed or is no longer there.
        """
        return self.decode_by(load_autoencoder(self.config.autoencoder).to(values.device), values)

    def decode_by(self, autoencoder: Autoencoder, values: Tensor) -> Tensor:
        """As ``decode``, by a given autoencoder that is on the device of the latents."""
        return decode(autoencoder, self.raw(values).float())

    def raw(self, values: Tensor) -> Tensor:
        """Latents as the autoencoder has them, of normalised ones: the inverse of ``encode``."""
        shift, scale = self._normalisation(values)
        return values / scale + shift

    def _normalisation(self, values: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = values.new_tensor(self.config.shift), values.new_tensor(self.config.scale)
        return shift[:, None, None], scale[:, None, None]


def space_of_model(latents: LatentConfig | None) -> Space:
    """The space of a model: that of its latents, or pixels if it has none."""
    return PIXELS if latents is None else AutoencoderSpace(latents)
