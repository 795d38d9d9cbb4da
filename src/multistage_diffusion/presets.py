"""Named settings to start from. Every one of them can be overridden, in Python with ``dataclasses.replace``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.config import (
    DataInfo,
    ModelConfig,
    NetworkConfig,
    PreconditioningName,
    RunConfig,
    ScheduleName,
    TrainingConfig,
)
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.stages import Stages

__all__ = ["ABOUT_PRESETS", "PRESETS", "Preset", "choose_stages", "plan_run"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model and the way to train it, but for the data and its stages."""

    schedule: ScheduleName = "vp"
    """Density of the noise levels in training: vp draws t uniformly, edm draws log sigma from N(-1.2, 1.2)."""
    preconditioning: PreconditioningName = "vp"
    """What the network predicts: the noise (vp, ddpm), or EDM's mixture of noise and image."""
    sigma_data: float | None = None
    """Standard deviation of the data, for EDM's preconditioning; measured if not given."""
    conditional: bool = False
    """Train a class-conditional model, if the data has labels."""
    boundaries: tuple[float, ...] = ()
    """Noise levels between the stages where no stages file is given and there are several decoders."""
    shape: Annotated[tuple[int, int, int], tyro.conf.Suppress] = (3, 32, 32)
    """Channels, height and width of the images it is meant for; a run takes those of its data."""
    network: NetworkConfig
    training: TrainingConfig


PRESETS: dict[str, Preset] = {
    "digits": Preset(
        schedule="edm",
        preconditioning="edm",
        conditional=True,
        boundaries=(0.32, 2.5),
        shape=(1, 8, 8),
        network=NetworkConfig(
            encoder_widths=(24,), decoder_widths=(32, 24, 16), blocks=1, attention_resolutions=(4,), dropout=0.1
        ),
        training=TrainingConfig(
            images=200_000,
            batch_size=128,
            learning_rate=2e-3,
            warmup_images=20_000,
            flip=False,
            record_images=5_000,
            checkpoint_images=50_000,
        ),
    ),
    "small": Preset(
        preconditioning="edm",
        boundaries=(2.51, 7.40),
        network=NetworkConfig(channel_mult=(1, 2, 2), blocks=2, attention_resolutions=(8,)),
        training=TrainingConfig(
            images=1_000_000, batch_size=64, learning_rate=1e-3, warmup_images=5_000, record_images=2_000, precision="bf16"
        ),
    ),
}
"""The presets by name."""

ABOUT_PRESETS = {
    "digits": "Handwritten digits of 8x8 pixels, class-conditional; minutes on a laptop.",
    "small": "Images of about 32x32 pixels; a small network to try things out with.",
}
"""A line about each preset."""


def choose_stages(preset: Preset, file: Path | None) -> Stages:
    """The stages of a file, else the preset's own; one stage for a single decoder."""
    if file is not None:
        return Stages.load(file)
    return Stages(preset.boundaries if len(preset.network.decoder_widths) > 1 else ())


def plan_run(preset: Preset, images: Images, stages: Stages, path: str) -> RunConfig:
    """The configuration of a run of a preset on a data set.

    Args:
        preset: model and recipe.
        images: the data; gives shape, number of classes and, unless the preset says otherwise, ``sigma_data``.
        stages: which decoder serves which noise level.
        path: where the data was read from.

    Raises:
        BadInput: if the data are latents, stages and decoders differ in number, or a conditional model lacks labels.
    """
    if images.latent:
        raise BadInput(f"{path} holds latents; stages can be found for them, but networks are trained on images so far.")
    decoders = len(preset.network.decoder_widths)
    if decoders != len(stages):
        raise BadInput(
            f"The number of stages is {len(stages)}, that of decoders {decoders}: give --decoder-widths one width for each "
            f"stage, or --stages a file with {decoders} stages (multistage cluster makes one)."
        )
    if preset.conditional and images.labels is None:
        raise BadInput(f"{path} has no labels for a conditional model; use --no-conditional.")
    model = ModelConfig(
        shape=images.shape,
        classes=len(images.classes) if preset.conditional else 0,
        boundaries=stages.boundaries,
        schedule=preset.schedule,
        preconditioning=preset.preconditioning,
        sigma_data=round(images.standard_deviation, 4) if preset.sigma_data is None else preset.sigma_data,
        network=preset.network,
    )
    data = DataInfo(path=path, fingerprint=images.fingerprint, images=len(images))
    return RunConfig(model=model, training=preset.training, data=data)
