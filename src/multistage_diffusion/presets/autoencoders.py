"""Presets of autoencoders."""

from dataclasses import replace

from multistage_diffusion.training.autoencoder import AutoencoderPreset, NetworkSettings

__all__ = ["ABOUT_AUTOENCODERS", "AUTOENCODERS"]

KL_F2 = AutoencoderPreset(network=NetworkSettings(widths=(64, 128), blocks=2, latent_channels=4))
LARGE = AutoencoderPreset(network=NetworkSettings(widths=(128, 256, 512), latent_channels=3))

_PRESETS: dict[str, tuple[str, AutoencoderPreset]] = {
    "kl-f2": ("Latents of half the height and width, 4 channels; for images of 32x32.", KL_F2),
    "kl-f4": ("Latents of a quarter of the height and width, 3 channels.", LARGE),
    "kl-f8": (
        "Latents of an eighth of the height and width, 4 channels.",
        replace(LARGE, network=NetworkSettings(widths=(128, 256, 512, 512), latent_channels=4)),
    ),
    "vq-f4": (
        "Latents of a quarter of the height and width, 3 channels, 8192 codes, as in the paper.",
        replace(LARGE, network=replace(LARGE.network, kind="vq")),
    ),
}

AUTOENCODERS = {name: preset for name, (_, preset) in _PRESETS.items()}
"""The presets by name."""

ABOUT_AUTOENCODERS = {name: about for name, (about, _) in _PRESETS.items()}
"""A line about each preset."""
