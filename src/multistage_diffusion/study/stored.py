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

__all__ = ["is_study", "load_study"]

STUDY, RESULTS = "study.json", "results.json"


@dataclass(frozen=True, kw_only=True)
class StoredArm(Settings):
    """What is read of an arm."""

    parameters: int = setting(0, at_least=0)
    macs_per_stage: tuple[int, ...] = ()
    training_macs: float | None = setting(None, at_least=0)
    """Version 0.2.0 did not write it."""
    curves: Mapping[str, Mapping[str, list[Point]]] = field(default_factory=dict)
    """By seed and metric."""
    finished_models: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoredResults(Settings):
    """The content of ``results.json``, as far as it is read."""

    arms: dict[str, StoredArm]


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study."""
    return (folder / STUDY).is_file()


def load_study(folder: Path) -> Results:
    """The study in a folder, with or without its runs.

    Raises:
        BadInput: if it is no study or has no results yet, or a file is damaged.
    """
    file = folder / RESULTS
    if not is_study(folder):
        raise BadInput(f"{folder} is not the folder of a study: it has no {STUDY}.")
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
    return Results(study, arms)


def _arm(name: str, study: StudyConfig, stored: StoredArm) -> ArmResults:
    seeds = {int(seed): dict(curves) for seed, curves in stored.curves.items()}
    finals = {
        int(seed): list[Mapping[str, Any]](found) for seed, found in stored.finished_models.items()
    }
    cost = stored.parameters, stored.macs_per_stage, stored.training_macs
    return ArmResults(name, study.arms[name], seeds, finals, *cost)
