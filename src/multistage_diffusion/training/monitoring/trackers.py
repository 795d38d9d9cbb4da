"""Experiment trackers, through accelerate."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from multistage_diffusion import distributed
from multistage_diffusion.config import to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.config import RunConfig, TrackerName
from multistage_diffusion.training.monitoring.records import Record

__all__ = ["joined_accelerator", "start_trackers", "track"]


def joined_accelerator(names: tuple[TrackerName, ...], out: Path) -> Accelerator:
    """Joins the other processes, if there are any; writes nothing yet.

    Raises:
        BadInput: if a tracker is not installed.
    """
    distributed.init_process_group(distributed.float64_device())
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"Tracking with {name} needs its package: pip install {name}.")
    return Accelerator(log_with=list(names) or None, project_dir=out)


def start_trackers(accelerator: Accelerator, out: Path, config: RunConfig) -> None:
    """Begins to track in the folder of a run, which is one by now."""
    if config.training.track:
        accelerator.init_trackers(
            "multistage-diffusion",
            _flat(to_json(config)),
            {"wandb": {"dir": str(out), "name": out.name}},
        )


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one level of names with dots, lists as text."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = (
                value if isinstance(value, int | float | str | bool) else str(value)
            )
    return flat


def track(accelerator: Accelerator, record: Record) -> None:
    """Sends a record to the trackers: each number under its name, those of a stage or a part with its number."""
    values: dict[str, float] = {}
    for name, value in asdict(record).items():
        if isinstance(value, list):
            values |= {
                f"{name}/{k}": entry for k, entry in enumerate(value, 1) if entry is not None
            }
        else:
            values[name] = value
    accelerator.log(values, step=record.images)
