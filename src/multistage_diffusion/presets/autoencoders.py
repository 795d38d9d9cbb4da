"""Presets of autoencoders."""

from dataclasses import replace

from multistage_diffusion.training.autoencoder import AutoencoderPreset, NetworkSettings

__all__ = ["ABOUT_AUTOENCODERS", "AUTOENCODERS"]

KL_F2 = AutoencoderPreset(network=NetworkSettings(widths=(64, 128), blocks=2, latent_channels=4))
LARGE = AutoencoderPreset(network=NetworkSettings(widths=(128, 256, 512), latent_channels=3))

_PRESETS: dict[str, tuple[str, AutoencoderPreset]] = {
    "kl-f2": ("Half the size a side, 4 channels; for images of 32x32 pixels.", KL_F2),
    "kl-f4": ("A quarter of the size a side, 3 channels.", LARGE),
    "kl-f8": (
        "An eighth of the size a side, 4 channels.",
        replace(LARGE, network=NetworkSettings(widths=(128, 256, 512, 512), latent_channels=4)),
    ),
    "vq-f4": (
        "A quarter of the size a side, 3 channels, 8192 codes: that of the paper's latents.",
        replace(LARGE, network=replace(LARGE.network, kind="vq")),
    ),
}

AUTOENCODERS = {name: preset for name, (_, preset) in _PRESETS.items()}
"""The presets by name."""

ABOUT_AUTOENCODERS = {name: about for name, (about, _) in _PRESETS.items()}
"""A line about each preset."""
