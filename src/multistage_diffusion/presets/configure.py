"""From a preset and a data set to a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from multistage_diffusion.config import to_json
from multistage_diffusion.data.augment import LABELS
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.png import check_bands
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.presets.preset import Preset
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.rates import Rates

__all__ = ["choose_stages", "configure_run", "preset_model"]


def choose_stages(preset: Preset, file: Path | None) -> Stages:
    """The stages of a file, else the preset's own; one stage for a single decoder."""
    if file is not None:
        return Stages.load(file)
    return Stages(preset.diffusion.boundaries if len(preset.network.decoder_widths) > 1 else ())


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
        schedule=preset.diffusion.schedule,
        schedule_settings=preset.diffusion.schedule_settings,
        preconditioning=preset.diffusion.preconditioning,
        sigma_data=(preset.diffusion.sigma_data or 0.5) if sigma_data is None else sigma_data,
        network=preset.network,
    )


def configure_run(
    preset: Preset, images: Images, stages: Stages, path: str, reading: ReadOptions | None = None
) -> RunConfig:
    """The configuration of a run of a preset on a data set.

    Args:
        preset: the model and how to train it.
        images: the data; gives shape, number of classes and, unless the preset sets it,
            ``sigma_data``.
        stages: which decoder serves which noise level.
        path: where the data was read from.
        reading: how it was read.

    Raises:
        BadInput: if the data are latents, stages and decoders differ in number, a conditional model
            lacks labels, or a setting does not have a value for each part of the network.
    """
    _check(preset, images, stages, path)
    classes = len(images.classes) if preset.diffusion.conditional else 0
    sigma_data = preset.diffusion.sigma_data
    if sigma_data is None:
        sigma_data = round(images.standard_deviation, 4)
    model = preset_model(preset, stages, images.shape, classes, sigma_data)
    if classes:
        model = replace(model, class_names=images.classes, class_numbers=images.class_numbers)
    data = DataInfo(
        path=path,
        fingerprint=images.fingerprint,
        images=len(images),
        reading=_without_cache(reading),
    )
    config = RunConfig(model=model, training=preset.training, data=data)
    check_bands(images.shape[0], preset.training.monitoring.bands)
    Rates(config)  # raises an error for settings without a value for each part
    return config


def _check(preset: Preset, images: Images, stages: Stages, path: str) -> None:
    """Raises BadInput if preset, images and stages do not fit each other."""
    if not images.space.decodes_to_pixels:
        raise BadInput(
            f"{path} holds {images.space.contents}; stages can be found for them, but networks are "
            "trained on images so far."
        )
    if preset.training.draws.augment and preset.network.augment_channels != LABELS:
        raise BadInput(
            f"--augment needs a network that is conditioned on it: --augment-channels {LABELS}."
        )
    decoders = len(preset.network.decoder_widths)
    if decoders != len(stages):
        raise BadInput(
            f"The number of stages is {len(stages)}, that of decoders {decoders}: give "
            "--decoder-widths one width for each stage, or --stages a file with "
            f"{decoders} stages (multistage cluster makes one)."
        )
    if preset.diffusion.conditional and images.labels is None:
        raise BadInput(f"{path} has no labels for a conditional model; use --no-conditional.")


def _without_cache(reading: ReadOptions | None) -> dict[str, Any]:
    """The options that decide which images are read, as JSON."""
    options = {} if reading is None else to_json(reading)
    return {name: value for name, value in options.items() if name != "cache"}
