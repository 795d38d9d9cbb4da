"""Whether a run may begin or go on in a folder."""

from dataclasses import replace
from pathlib import Path

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.training.checkpoints import images_seen
from multistage_diffusion.training.config import RunConfig

__all__ = ["begin_with", "check_run"]

WELCOME = ("stages.json", "stages.svg", "preview.png")  # what may lie in the folder of a new run


def check_run(out: Path, config: RunConfig, images: Images) -> None:
    """Checks that ``out`` is new or holds the same run, up to its length and the path of its data.

    Raises:
        BadInput: if ``out`` holds another run or other files, or the data is not what the configuration says.
    """
    if images.fingerprint != config.data.fingerprint:
        raise BadInput(
            f"The images differ from those of the run ({images.fingerprint}, not {config.data.fingerprint})."
        )
    path = out / "config.json"
    if path.exists():
        old = from_json(RunConfig, read_json(path))
        if old.data.fingerprint != config.data.fingerprint:
            there = f"those of {old.data.path}{_read_otherwise(old, config)}"
            raise BadInput(f"{out} holds a run on other images, {there}; choose another --out.")
        _check_same(out, to_json(_without_length(old)), to_json(_without_length(config)))
    elif out.is_dir() and (
        other := sorted(path.name for path in out.iterdir() if not _welcome(path.name))
    ):
        raise BadInput(
            f"{out} holds {other[0]} but no config.json, so it is no run; choose another --out."
        )
    seen = images_seen(out)
    if seen - config.training.batch_size >= config.training.images:
        raise BadInput(
            f"The run in {out} has already seen {seen} images; give --images {seen} or more to continue it."
        )


def _read_otherwise(old: RunConfig, new: RunConfig) -> str:
    """How the images of a run were read otherwise than now, in words, if that was recorded."""
    now = new.data.reading
    both = ((name, value, now[name]) for name, value in old.data.reading.items() if name in now)
    said = ", ".join(
        f"--{name.replace('_', '-')} {_typed(a)} there, {_typed(b)} here"
        for name, a, b in both
        if a != b
    )
    return said and f" ({said})"


def _typed(value: object) -> str:
    """An option's value as it is typed."""
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value or "")) or "none"


def _welcome(name: str) -> bool:
    """Whether a file may lie in the folder of a new run: its stages, or what is being written under a temporary name."""
    return name in WELCOME or any(
        name.startswith(f".{file}.") for file in (*WELCOME, "config.json", "stats.jsonl")
    )


def _without_length(config: RunConfig) -> RunConfig:
    """A run without what may change from sitting to sitting."""
    free = {
        "images": 1,
        "keep_last": 1,
        "keep_every": 0,
        "snapshot_images": 1,
        "grid_images": 0,
        "track": (),
    }
    training = replace(config.training, **free, compile=False, shard=False)  # type: ignore[arg-type]
    return replace(config, training=training, data=replace(config.data, path="", reading={}))


def _check_same(out: Path, old: object, new: object, where: str = "") -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            _check_same(out, old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        raise BadInput(
            f"{out} holds a run with another configuration: {where} is {old} there, {new} here. Choose another --out."
        )


def begin_with(denoiser: NetworkDenoiser, config: RunConfig, init: Model) -> None:
    """Gives a network the weights of a model, which must be of the same network and stages."""
    ours, given = config.model, init.config
    if any(_same_function(ours)[name] != value for name, value in _same_function(given).items()):
        raise BadInput(
            f"The model to begin with has decoders {list(given.network.decoder_widths)} and boundaries {list(given.boundaries)}, "
            f"the run {list(ours.network.decoder_widths)} and {list(ours.boundaries)}, or their blocks or preconditioning differ."
        )
    try:
        denoiser.network.load_state_dict(init.denoiser.network.state_dict())
    except RuntimeError as error:
        raise BadInput("The model to begin with is for other images or classes.") from error


def _same_function(config: ModelConfig) -> dict[str, object]:
    """What two models must share for the same weights to mean the same."""
    network = replace(config.network, dropout=0.0, label_dropout=0.0)
    return {
        "network": network,
        "boundaries": config.boundaries,
        "preconditioning": config.preconditioning,
    }
