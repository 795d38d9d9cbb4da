"""The results of a study, from the file that it left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistage_diffusion.config import Settings, from_json, read_config, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.study.config import StudyConfig
from multistage_diffusion.study.curve import Point
from multistage_diffusion.study.results import ArmResults, Results

__all__ = ["StoredStudy", "is_study", "load_study"]

STUDY, RESULTS = "study.json", "results.json"


@dataclass(frozen=True, kw_only=True)
class StoredArm(Settings):
    """What is read of an arm."""

    about: str = ""
    parameters: int = setting(0, at_least=0)
    macs_per_stage: tuple[int, ...] = ()
    curves: Mapping[str, Mapping[str, list[Point]]] = field(default_factory=dict)
    """By seed and metric."""
    finished_models: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredResults(Settings):
    """The content of ``results.json``, as far as it is read."""

    arms: dict[str, StoredArm]


@dataclass(frozen=True)
class StoredStudy:
    """A study in its folder."""

    results: Results
    arms: Mapping[str, StoredArm]


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return (folder / STUDY).is_file()


def load_study(folder: Path) -> StoredStudy:
    """The study in a folder, with or without its runs.

    Raises:
        BadInput: if it has no results yet, or a file is damaged.
    """
    file = folder / RESULTS
    if not file.exists():
        raise BadInput(f"{folder} holds a study without results.json (multistage study makes it).")
    study = from_json(StudyConfig, read_json(folder / STUDY), str(folder / STUDY))
    stored = read_config(StoredResults, file).arms
    unknown = sorted(stored.keys() - study.arms.keys())
    if unknown:
        raise BadInput(f"{file} has the arm {unknown[0]}, which {folder / STUDY} does not have.")
    arms = {name: _arm(name, study, stored[name]) for name in study.arms if name in stored}
    if study.reference not in arms:
        raise BadInput(f"{file} does not have the arm {study.reference}, the reference.")
    return StoredStudy(Results(study, arms), stored)


def _arm(name: str, study: StudyConfig, stored: StoredArm) -> ArmResults:
    seeds = {int(seed): dict(curves) for seed, curves in stored.curves.items()}
    finals = {
        int(seed): list[Mapping[str, Any]](found) for seed, found in stored.finished_models.items()
    }
    return ArmResults(name, study.arms[name], seeds, finals)
