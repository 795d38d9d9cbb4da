"""Autoencoders, and latents of images."""

from multistage_diffusion.latents.autoencoder import Autoencoder, decode, encode
from multistage_diffusion.latents.find import find_autoencoder, load_autoencoder
from multistage_diffusion.latents.space import AutoencoderSpace, space_of_model

__all__ = [
    "Autoencoder",
    "AutoencoderSpace",
    "decode",
    "encode",
    "find_autoencoder",
    "load_autoencoder",
    "space_of_model",
]
