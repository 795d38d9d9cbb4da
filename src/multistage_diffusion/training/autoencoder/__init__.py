"""Training of autoencoders, with the parts that the training of denoisers has."""

from multistage_diffusion.training.autoencoder.config import (
    AutoencoderPreset,
    AutoencoderRun,
    NetworkSettings,
)
from multistage_diffusion.training.autoencoder.loop import train_autoencoder
from multistage_diffusion.training.autoencoder.record import AutoencoderRecord

__all__ = [
    "AutoencoderPreset",
    "AutoencoderRecord",
    "AutoencoderRun",
    "NetworkSettings",
    "train_autoencoder",
]
