"""Study files."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

from multistage_diffusion.config import Settings, from_json, setting
from multistage_diffusion.errors import BadInput

__all__ = [
    "Arm",
    "Option",
    "Options",
    "ReplacedStage",
    "StudyConfig",
    "WarmStart",
    "as_arguments",
    "read_study",
]

Option = bool | int | float | str | list[int] | list[float] | list[str]
Options = dict[str, Option]
"""Options of a command by name, without the dashes."""


@dataclass(frozen=True, kw_only=True)
class WarmStart(Settings):
    """Weights that an arm begins with."""

    arm: str
    """Another arm, whose network is unified; its run of the same seed."""
    images: int = setting(MISSING, at_least=0)
    """The checkpoint, by the images it has seen. Their cost counts as this arm's."""


@dataclass(frozen=True, kw_only=True)
class ReplacedStage(Settings):
    """A finished model with one of its stages as it was at each checkpoint; no training."""

    arm: str
    """Another arm, of whose runs they are."""
    stage: int = setting(MISSING, at_least=1)
    """Which stage, 1 for the smallest noise."""


@dataclass(frozen=True, kw_only=True)
class Arm(Settings):
    """One way to train."""

    about: str = ""
    """A few words for tables."""
    train: Options = field(default_factory=dict)
    """Options of ``multistage train``, beside those of all arms."""
    density: Literal["same", "own"] = "same"
    """Whether its noise levels must have the density of the reference's."""
    images: int | None = setting(None, above=0)
    """Length of its runs, at most what the reference's cost pays for. Default: that."""
    cluster: Options = field(default_factory=dict)
    """Options of ``multistage cluster``, to find the stages with."""
    init: WarmStart | None = None
    per_stage: str | None = None
    """Another arm, from whose checkpoints the best one for each stage is taken; no training."""
    replaced: ReplacedStage | None = None


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
    seeds: tuple[int, ...] = setting((0,), at_least=0)
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
    gradients: tuple[str, ...] = ()
    """Arms for which the cosines of gradients between noise levels are measured."""
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
            if arm.replaced:
                mentioned[f"arms.{name}.replaced.arm"] = arm.replaced.arm
        mentioned |= {f"gradients, {name}": name for name in self.gradients}
        for where, arm_name in mentioned.items():
            if arm_name not in self.arms:
                raise BadInput(f"The study has no arm {arm_name!r}, which its {where} names.")
        if not self.seeds:
            raise BadInput("The study needs seeds.")


def read_study(path: Path, size: str | None = None) -> StudyConfig:
    """A study from a TOML file.

    Args:
        path: the file. Keys may have dashes or underscores. Its setting ``extends`` names another
            file beside it, whose settings it replaces or adds to.
        size: the table ``sizes.NAME`` of the file, whose settings replace those of the same name.

    Raises:
        BadInput: if the file cannot be read, holds something else, or has no such size.
    """
    content = _read(path)
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


def _read(path: Path) -> dict[str, Any]:
    """The settings in a file and in those that it extends."""
    try:
        content = _with_underscores(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a TOML file: {error}.") from error
    base = content.pop("extends", None)
    if base is None:
        return content
    file = path.parent / str(base)
    if not file.is_file() or file == path:
        raise BadInput(f"{path} extends {file}, which is no other file.")
    return _merged(_read(file), content)


def _with_underscores(value: Any) -> Any:
    """Settings with underscores for dashes, names of arms as they are."""
    if not isinstance(value, Mapping):
        return value
    return {
        key.replace("-", "_"): {name: _with_underscores(arm) for name, arm in inner.items()}
        if key == "arms" and isinstance(inner, Mapping)
        else _with_underscores(inner)
        for key, inner in value.items()
    }


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
