"""Study files."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from multistage_diffusion.config import Settings, from_json, setting
from multistage_diffusion.errors import BadInput

__all__ = ["Arm", "Option", "Options", "StudyConfig", "WarmStart", "as_arguments", "read_study"]

Option = bool | int | float | str | list[int] | list[float] | list[str]
Options = dict[str, Option]
"""Options of a command by name, without the dashes."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Weights that an arm begins with."""

    arm: str
    """Another arm, whose network is unified; its run of the same seed."""
    images: int
    """The checkpoint, by the images it has seen. Their cost counts as this arm's."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train."""

    about: str = ""
    """A few words for tables."""
    train: Options = field(default_factory=dict)
    """Options of ``multistage train``, beside those of all arms."""
    density: Literal["same", "own"] = "same"
    """Whether its noise levels must have the density of the reference's."""
    images: int | None = None
    """Length of its runs, at most what the reference's cost pays for. Default: that."""
    cluster: Options = field(default_factory=dict)
    """Options of ``multistage cluster``, to find the stages with."""
    init: WarmStart | None = None
    per_stage: str | None = None
    """Another arm, from whose checkpoints the best one for each stage is taken; no training."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Settings):
    """Several arms, trained at the same cost and measured in the same way."""

    name: str
    about: str = ""
    preset: str
    """Of ``multistage train``."""
    data: str
    """Images to train on, as for ``multistage train``."""
    held_out_data: str | None = None
    """Images of the same kind for the denoising loss. Default: those trained on."""
    reference: str
    """The arm whose cost all others may spend."""
    images: int = setting(above=0, default=0)
    """Length of a run of the reference."""
    seeds: tuple[int, ...] = (0,)
    checkpoints: int = setting(6, above=0)
    """Points of a curve."""
    train: Options = field(default_factory=dict)
    """Options of ``multistage train`` for all arms."""
    evaluate: Options = field(default_factory=dict)
    """Options of ``multistage evaluate`` at each checkpoint; none for the denoising loss alone."""
    final: Options = field(default_factory=dict)
    """The same for finished models, for example with more images; none for nothing more."""
    samplers: list[Options] = field(default_factory=list)
    """Options of ``multistage evaluate`` beside ``evaluate``'s, each set measured on the finished
    models: solvers and numbers of steps."""
    denoising_images: int = setting(1024, above=0)
    """Noisy images in each stage for the denoising loss."""
    arms: dict[str, Arm]

    def __post_init__(self) -> None:
        super().__post_init__()
        mentioned = {"reference": self.reference}
        for name, arm in self.arms.items():
            if arm.init:
                mentioned[f"arms.{name}.init.arm"] = arm.init.arm
            if arm.per_stage:
                mentioned[f"arms.{name}.per_stage"] = arm.per_stage
        for where, arm_name in mentioned.items():
            if arm_name not in self.arms:
                raise BadInput(f"The study has no arm {arm_name!r}, which its {where} names.")
        if not self.images or not self.seeds:
            raise BadInput("The study needs images, the length of a run, and seeds.")


def read_study(path: Path, size: str | None = None) -> StudyConfig:
    """A study from a TOML file.

    Args:
        path: the file. Keys may have dashes or underscores.
        size: the table ``sizes.NAME`` of the file, whose settings replace those of the same name.

    Raises:
        BadInput: if the file cannot be read, holds something else, or has no such size.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a TOML file: {error}.") from error
    content = _with_underscores(content)
    sizes = content.pop("sizes", {})
    if size is not None:
        if size not in sizes:
            known = ", ".join(sizes) or "none"
            raise BadInput(f"{path} has no size {size!r}; its sizes: {known}.")
        content = _merged(content, sizes[size])
    unknown = sorted(content.keys() - StudyConfig.__dataclass_fields__.keys())
    if unknown:
        raise BadInput(f"{path} has an unknown setting: {unknown[0]}.")
    return from_json(StudyConfig, {"name": path.stem, **content})


def _with_underscores(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key.replace("-", "_"): _with_underscores(inner) for key, inner in value.items()}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def as_arguments(options: Mapping[str, Option]) -> list[str]:
    """Options as they are typed."""
    words: list[str] = []
    for key, value in options.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, values)]
    return words
