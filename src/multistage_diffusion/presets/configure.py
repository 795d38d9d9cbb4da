"""From a preset and a data set to a run."""

from dataclasses import replace
from pathlib import Path

from multistage_diffusion.data.augment import LABELS
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions, reading_settings
from multistage_diffusion.data.png import check_bands
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.presets.preset import DiffusionConfig, Preset
from multistage_diffusion.space import LatentConfig
from multistage_diffusion.stages import Stages, StagesFile
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.rates import Rates

__all__ = ["choose_stages", "configure_run", "preset_model", "with_model"]


def choose_stages(preset: Preset, file: Path | None, deviation: float | None = None) -> Stages:
    """The stages of a file, else the preset's own; one stage for a single decoder.

    Args:
        preset: the preset.
        file: a stages file. Boundaries that were found on latents are brought from the standard
            deviation which these had to that of the network's values.
        deviation: that of the network's values, if they are latents.
    """
    if file is not None:
        found = StagesFile.load(file)
        theirs = found.data.deviation if found.data else None
        ratio = 1.0 if theirs is None or deviation is None else deviation / theirs
        return Stages(tuple(boundary * ratio for boundary in found.boundaries))
    return Stages(preset.diffusion.boundaries if preset.network.stages > 1 else ())


def preset_model(
    preset: Preset,
    stages: Stages,
    shape: tuple[int, int, int] | None = None,
    classes: int = 0,
    sigma_data: float | None = None,
    latents: LatentConfig | None = None,
) -> ModelConfig:
    """The model of a preset, without data.

    Args:
        preset: the preset.
        stages: its stages.
        shape: channels, height, width of an image; the preset's usual ones if not given.
        classes: number of classes, 0 for an unconditional model.
        sigma_data: standard deviation of the data; the preset's, or 0.5, if not given.
        latents: how images become latents; None for a model of pixels.
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
        latents=latents,
    )


def with_model(preset: Preset, model: ModelConfig) -> Preset:
    """A preset with the network of a model, its stages and what it predicts at which levels.

    The deviation of the data is kept for EDM only, whose network depends on it.
    """
    diffusion = DiffusionConfig(
        schedule=model.schedule,
        schedule_settings=model.schedule_settings,
        preconditioning=model.preconditioning,
        sigma_data=model.sigma_data if model.preconditioning == "edm" else None,
        conditional=model.classes > 0,
        boundaries=model.boundaries,
    )
    return replace(preset, diffusion=diffusion, network=model.network, shape=model.shape)


def configure_run(
    preset: Preset,
    images: Images,
    stages: Stages,
    path: str,
    reading: ReadOptions | None = None,
    context: str = "",
) -> RunConfig:
    """The configuration of a run of a preset on a data set.

    Args:
        preset: the model and how to train it.
        images: the data; gives shape, number of classes and, unless the preset sets it,
            ``sigma_data``.
        stages: which decoder serves which noise level.
        path: where the data was read from.
        reading: how it was read.
        context: fingerprint of the file of contexts, if there is one.

    Raises:
        BadInput: if the data are latents of an unknown autoencoder or without the mirrored copies
            that are asked for, stages and decoders differ in number, a conditional model lacks
            labels, or a setting does not have a value for each part of the network.
    """
    _check(preset, images, stages, path)
    classes = len(images.classes) if preset.diffusion.conditional else 0
    sigma_data = preset.diffusion.sigma_data
    if sigma_data is None:
        sigma_data = round(images.standard_deviation, 4)
    model = preset_model(preset, stages, images.shape, classes, sigma_data, images.latents)
    if classes:
        model = replace(model, class_names=images.classes, class_numbers=images.class_numbers)
    data = DataInfo(
        path=path,
        fingerprint=images.fingerprint,
        images=len(images),
        reading={} if reading is None else reading_settings(reading),
        context=context,
    )
    config = RunConfig(model=model, training=preset.training, data=data)
    check_bands(images.shape[0], preset.training.monitoring.bands)
    Rates(config)  # raises an error for settings without a value for each part
    return config


def _check(preset: Preset, images: Images, stages: Stages, path: str) -> None:
    """Raises BadInput if preset, images and stages do not fit each other."""
    if not images.space.stores_pixels:
        _check_latents(preset, images, path)
    if preset.training.draws.augment and preset.network.augment_channels != LABELS:
        raise BadInput(
            f"--augment needs a network that is conditioned on it: --augment-channels {LABELS}."
        )
    _check_context(preset, images)
    decoders = preset.network.stages
    if decoders != len(stages):
        raise BadInput(
            f"The number of stages is {len(stages)}, that of decoders {decoders}: give "
            "--decoder-widths one width for each stage, or --stages a file with "
            f"{decoders} stages (multistage cluster makes one)."
        )
    if preset.diffusion.conditional and images.labels is None:
        raise BadInput(f"{path} has no labels for a conditional model; use --no-conditional.")


def _check_context(preset: Preset, images: Images) -> None:
    """Raises BadInput if there is a context that does not fit images or network."""
    context, channels = images.context, preset.network.context_channels
    if context is None:
        return
    if len(context) != len(images):
        raise BadInput(
            f"There are contexts of {len(context)} images, and {len(images)} images: give "
            "--context a row for each image."
        )
    if context.shape[2] != channels:
        raise BadInput(
            f"The context has {context.shape[2]} channels: give --context-channels "
            f"{context.shape[2]}, not {channels}."
        )


def _check_latents(preset: Preset, images: Images, path: str) -> None:
    """Raises BadInput if latents cannot be decoded or mirrored."""
    if images.latents is None:
        raise BadInput(
            f"{path} holds latents of an unknown autoencoder; stages can be found for them, but "
            "to train, give a folder from multistage encode."
        )
    draws = preset.training.draws
    if draws.flip and images.mirrored is None:
        raise BadInput(
            f"{path} holds no mirrored copies, and latents of mirrored images are not mirrored "
            "latents: encode with --mirrored, or give --no-flip."
        )
    if draws.augment:
        raise BadInput("--augment transforms pixels, which latents are not: give --augment 0.")
