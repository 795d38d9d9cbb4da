"""From a preset and a data set to a run."""

from pathlib import Path

from multistage_diffusion.config import to_json
from multistage_diffusion.data.augment import LABELS
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.presets.preset import Preset
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.rates import Rates

__all__ = ["choose_stages", "plan_run", "preset_model"]


def choose_stages(preset: Preset, file: Path | None) -> Stages:
    """The stages of a file, else the preset's own; one stage for a single decoder."""
    if file is not None:
        return Stages.load(file)
    return Stages(preset.boundaries if len(preset.network.decoder_widths) > 1 else ())


def preset_model(
    preset: Preset,
    stages: Stages,
    shape: tuple[int, int, int] | None = None,
    classes: int = 0,
    sigma_data: float | None = None,
) -> ModelConfig:
    """The model of a preset, without data.

    Args:
        preset: the preset.
        stages: its stages.
        shape: channels, height, width of an image; the preset's usual ones if not given.
        classes: number of classes, 0 for an unconditional model.
        sigma_data: standard deviation of the data; the preset's, or 0.5, if not given.
    """
    return ModelConfig(
        shape=shape or preset.shape,
        classes=classes,
        boundaries=stages.boundaries,
        schedule=preset.schedule,
        preconditioning=preset.preconditioning,
        sigma_data=(preset.sigma_data or 0.5) if sigma_data is None else sigma_data,
        network=preset.network,
    )


def plan_run(
    preset: Preset, images: Images, stages: Stages, path: str, reading: ReadOptions | None = None
) -> RunConfig:
    """The configuration of a run of a preset on a data set.

    Args:
        preset: model and recipe.
        images: the data; gives shape, number of classes and, unless the preset says otherwise, ``sigma_data``.
        stages: which decoder serves which noise level.
        path: where the data was read from.
        reading: how it was read.

    Raises:
        BadInput: if the data are latents, stages and decoders differ in number, a conditional model lacks labels, or a
            setting has not a number for each part of the network.
    """
    if not images.space.decodes_to_pixels:
        raise BadInput(
            f"{path} holds {images.space.contents}; stages can be found for them, but networks are trained on images so far."
        )
    if preset.training.augment and preset.network.augment_channels != LABELS:
        raise BadInput(
            f"--augment needs a network that is told of it: --augment-channels {LABELS}."
        )
    decoders = len(preset.network.decoder_widths)
    if decoders != len(stages):
        raise BadInput(
            f"The number of stages is {len(stages)}, that of decoders {decoders}: give --decoder-widths one width for each "
            f"stage, or --stages a file with {decoders} stages (multistage cluster makes one)."
        )
    if preset.conditional and images.labels is None:
        raise BadInput(f"{path} has no labels for a conditional model; use --no-conditional.")
    sigma_data = (
        round(images.standard_deviation, 4) if preset.sigma_data is None else preset.sigma_data
    )
    model = preset_model(
        preset, stages, images.shape, len(images.classes) if preset.conditional else 0, sigma_data
    )
    options = (
        {}
        if reading is None
        else {name: value for name, value in to_json(reading).items() if name != "cache"}
    )
    data = DataInfo(path=path, fingerprint=images.fingerprint, images=len(images), reading=options)
    config = RunConfig(model=model, training=preset.training, data=data)
    Rates(config)  # finds settings that have not a number for each part
    return config
