"""Whether a run may begin or continue in a folder, and with which weights it begins."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from multistage_diffusion.config import fixed_settings
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.preconditioning import PRECONDITIONINGS
from multistage_diffusion.run import Run, is_of_lock
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.training.config import RunConfig, load_run_config

__all__ = ["check_run", "load_initial_weights"]

SOME_LEVELS = (0.01, 0.1, 1.0, 10.0)
PRODUCED_BEFORE = ("stages.json", "stages.svg", "preview.png")  # may lie in the folder of a new run
WRITTEN_FIRST = (*PRODUCED_BEFORE, "config.json", "stats.jsonl")


def check_run(run: Run, config: RunConfig, images: Images) -> None:
    """Checks that a folder is free or holds this run, up to the settings that may change.

    Raises:
        BadInput: if the folder holds another run or other files, or the images are not those of
            the configuration.
    """
    if images.fingerprint != config.data.fingerprint:
        raise BadInput(
            f"The images differ from those of the run ({images.fingerprint}, not "
            f"{config.data.fingerprint})."
        )
    if run.begun:
        _check_same_run(run, load_run_config(run), config)
    else:
        _check_free(run)
    _check_length(run, config)


def _check_same_run(run: Run, old: RunConfig, new: RunConfig) -> None:
    if old.data.fingerprint != new.data.fingerprint:
        others = f"those of {old.data.path}{_different_reading(old, new)}"
        raise BadInput(f"{run.path} holds a run on other images, {others}; choose another --out.")
    _check_same_settings(run, fixed_settings(old), fixed_settings(new))


def _check_same_settings(run: Run, old: object, new: object, where: str = "") -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            path = f"{where}.{key}" if where else key
            _check_same_settings(run, old.get(key), new.get(key), path)
    elif old != new:
        raise BadInput(
            f"{run.path} holds a run with another configuration: {where} is {old} there, {new} "
            "here. Choose another --out."
        )


def _different_reading(old: RunConfig, new: RunConfig) -> str:
    """How the images of a run were read differently, in words, if that was recorded."""
    before = old.data.reading
    now = new.data.reading
    differing = [name for name in before if name in now and before[name] != now[name]]
    words = ", ".join(
        f"--{name.replace('_', '-')} {_as_typed(before[name])} there, {_as_typed(now[name])} here"
        for name in differing
    )
    return words and f" ({words})"


def _as_typed(value: object) -> str:
    """An option's value as a user types it."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return text or "none"


def _check_free(run: Run) -> None:
    """Refuses a folder with files that no run leaves before it begins."""
    found = run.path.iterdir() if run.path.is_dir() else ()
    names = sorted(path.name for path in found if not is_of_lock(path))
    others = [name for name in names if not _may_be_there(name)]
    if others:
        raise BadInput(
            f"{run.path} holds {others[0]} but no config.json, so it is not a run; choose another "
            "--out."
        )


def _may_be_there(name: str) -> bool:
    """Whether a file may be in the folder of a new run, also under its temporary name."""
    temporary = any(name.startswith(f".{file}.") for file in WRITTEN_FIRST)
    return name in PRODUCED_BEFORE or temporary


def _check_length(run: Run, config: RunConfig) -> None:
    seen = run.images_seen()
    if seen - config.training.batch_size >= config.training.images:
        raise BadInput(
            f"The run in {run.path} has already seen {seen} images; give --images {seen} or more "
            "to continue it."
        )


def load_initial_weights(denoiser: NetworkDenoiser, config: RunConfig, init: Model) -> None:
    """Gives a network the weights of a model, which must have the same network and stages.

    Raises:
        BadInput: if the weights would not mean the same.
    """
    ours = config.model
    given = init.config
    if _function(ours) != _function(given):
        raise BadInput(
            "The model to begin with has decoders "
            f"{list(given.network.decoder_widths)} and boundaries {list(given.boundaries)}, the "
            f"run {list(ours.network.decoder_widths)} and {list(ours.boundaries)}, or their "
            "blocks, preconditioning or schedule differ."
        )
    if given.class_names and ours.class_names and given.class_names != ours.class_names:
        raise BadInput(
            f"The model to begin with has the classes {named(given.class_names)}, the data "
            f"{named(ours.class_names)}: their labels would not mean the same."
        )
    try:
        denoiser.network.load_state_dict(init.denoiser.network.state_dict())
    except RuntimeError as error:
        raise BadInput(
            "The model to begin with is for other images or classes: give --init one of the same "
            "shape and number of classes."
        ) from error


def _function(config: ModelConfig) -> Mapping[str, object]:
    """What two models must share for the same weights to mean the same."""
    network = replace(config.network, dropout=0.0, label_dropout=0.0)
    p = PRECONDITIONINGS[config.preconditioning](config.sigma_data, config.density)
    return {
        "network": network,
        "boundaries": config.boundaries,
        "preconditioning": config.preconditioning,
        "noise labels": p.c_noise(as_float64(torch.tensor(SOME_LEVELS))).tolist(),
    }
