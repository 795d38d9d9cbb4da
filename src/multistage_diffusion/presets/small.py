"""Presets that train on a laptop, a sibling of each base among them."""

from dataclasses import replace

from multistage_diffusion.config import replace_settings
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.presets.paper import DPM_CIFAR10, EDM_CIFAR10, LDM_256
from multistage_diffusion.presets.preset import DiffusionConfig, Preset
from multistage_diffusion.training.config import TrainingConfig

__all__ = ["SMALL"]

DIGITS = Preset(
    diffusion=DiffusionConfig(
        schedule="edm",
        preconditioning="edm",
        conditional=True,
        boundaries=(0.32, 2.5),
    ),
    shape=(1, 8, 8),
    network=NetworkConfig(
        encoder_widths=(24,),
        decoder_widths=(32, 24, 16),
        blocks=1,
        attention_resolutions=(4,),
        dropout=0.1,
    ),
    training=replace_settings(
        TrainingConfig(),
        images=200_000,
        batch_size=128,
        learning_rate=2e-3,
        warmup_images=20_000,
        flip=False,
        record_images=5_000,
        checkpoint_images=50_000,
        snapshot_images=5_000,
    ),
)

# They cost as much as a unified network of width 32. Of the widths tried, they lose least in the
# stages where they lose (benchmarks/study.md).
SMALL_WIDTHS = (40, 24, 24)

SMALL_IMAGES = Preset(
    diffusion=DiffusionConfig(
        preconditioning="edm",
        boundaries=(2.51, 7.40),
    ),
    network=NetworkConfig(
        decoder_widths=SMALL_WIDTHS, channel_mult=(1, 2, 2), blocks=2, attention_resolutions=(8,)
    ),
    training=replace_settings(
        TrainingConfig(),
        images=1_000_000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_images=5_000,
        record_images=2_000,
        snapshot_images=20_000,
        precision="bf16",
    ),
)


def _sibling(base: Preset) -> Preset:
    """A base's blocks and loss in a small network for images of about 32x32, for a short run."""
    network = replace(
        base.network,
        encoder_widths=(32,),
        decoder_widths=SMALL_WIDTHS,
        channel_mult=(1, 2, 2),
        blocks=2,
        attention_resolutions=(8,),
        dropout=0.0,
    )
    optimization = base.training.optimization
    training = replace_settings(
        SMALL_IMAGES.training,
        optimizer=optimization.optimizer,
        weight_decay=optimization.weight_decay,
        clip_norm=optimization.clip_norm,
        augment=base.training.draws.augment,
        flip=base.training.draws.flip,
    )
    return replace(base, shape=(3, 32, 32), network=network, training=training)


SMALL: dict[str, tuple[str, Preset]] = {
    "digits": ("Handwritten digits of 8x8 pixels, class-conditional; minutes on a laptop.", DIGITS),
    "small": (
        "A small network for images of about 32x32 pixels.",
        SMALL_IMAGES,
    ),
    "edm-small": (
        "A small network with the blocks, loss and augmentation of EDM.",
        _sibling(EDM_CIFAR10),
    ),
    "dpm-small": (
        "A small network with the blocks and loss of DPM-Solver (VP).",
        _sibling(DPM_CIFAR10),
    ),
    "ldm-small": (
        "A small network with the blocks and loss of latent diffusion, for images.",
        _sibling(LDM_256),
    ),
}
"""A line about each preset, and the preset."""
