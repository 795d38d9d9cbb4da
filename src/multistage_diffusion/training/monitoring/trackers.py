"""Experiment trackers, through accelerate."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from multistage_diffusion import distributed
from multistage_diffusion.config import to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.monitoring.config import TrackerName
from multistage_diffusion.training.monitoring.records import Record

__all__ = ["make_accelerator", "start_trackers", "track"]

PROJECT = "multistage-diffusion"


def make_accelerator(trackers: tuple[TrackerName, ...], run: Run) -> Accelerator:
    """Joins the process group, if there is one, and prepares trackers; writes nothing yet.

    Raises:
        BadInput: if a tracker is not installed.
    """
    distributed.init_process_group(distributed.float64_device())
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"Tracking with {name} needs its package: pip install {name}.")
    return Accelerator(log_with=list(trackers) or None, project_dir=run.path)


def start_trackers(accelerator: Accelerator, run: Run, config: RunConfig) -> None:
    """Starts the trackers in the folder of a run, which must have begun."""
    if config.training.monitoring.track:
        options = {"wandb": {"dir": str(run.path), "name": run.path.name}}
        accelerator.init_trackers(PROJECT, _flat(to_json(config)), options)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings flattened to names with dots; values that are no scalars as text."""
    flat = dict[str, Any]()
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            scalar = isinstance(value, int | float | str | bool)
            flat[prefix + name] = value if scalar else str(value)
    return flat


def track(accelerator: Accelerator, record: Record) -> None:
    """Sends a record to the trackers.

    Each number has its own name; those of a stage or a part end with its number.
    """
    values = dict[str, float]()
    for name, value in asdict(record).items():
        if isinstance(value, list):
            entries = {f"{name}/{k}": entry for k, entry in enumerate(value, 1)}
            values |= {key: entry for key, entry in entries.items() if entry is not None}
        else:
            values[name] = value
    accelerator.log(values, step=record.images)
