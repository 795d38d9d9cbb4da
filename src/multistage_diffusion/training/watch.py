"""What a person may look at while a run goes on: grids of samples and trackers of accelerate."""

import importlib.util
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from multistage_diffusion import processes
from multistage_diffusion.checkpoint import Model
from multistage_diffusion.config import RunConfig, TrackerName, to_json
from multistage_diffusion.denoiser import build_denoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.generation import SampleOptions, generate, grid_image, save_png
from multistage_diffusion.training.records import Record
from multistage_diffusion.training.state import State, whole_weights

__all__ = ["draw_grids", "joined_accelerator", "memory_in_use", "start_trackers", "track"]

GRID = 16


def joined_accelerator(names: tuple[TrackerName, ...], out: Path) -> Accelerator:
    """Joins the other processes, if there are any; writes nothing yet.

    Raises:
        BadInput: if a tracker is not installed.
    """
    processes.join(processes.float64_device())
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"Tracking with {name} needs its package: pip install {name}.")
    return Accelerator(log_with=list(names) or None, project_dir=out)


def start_trackers(accelerator: Accelerator, out: Path, config: RunConfig) -> None:
    """Begins to track in the folder of a run, which is one by now."""
    if config.training.track:
        accelerator.init_trackers("multistage-diffusion", _flat(to_json(config)), {"wandb": {"dir": str(out), "name": out.name}})


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as one level of names with dots, lists as text."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[above + name] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat


def track(accelerator: Accelerator, record: Record) -> None:
    """Sends a record to the trackers: each number under its name, those of a stage or a part with its number."""
    values: dict[str, float] = {}
    for name, value in asdict(record).items():
        if isinstance(value, list):
            values |= {f"{name}/{k}": entry for k, entry in enumerate(value, 1) if entry is not None}
        else:
            values[name] = value
    accelerator.log(values, step=record.images)


def draw_grids(run: Path, config: RunConfig, state: State, device: torch.device) -> None:
    """Draws samples with the weights as they are and with the averaged ones. All processes call it, the first one draws."""
    raw, averaged = whole_weights(state.denoiser), whole_weights(state.averages.main)
    if processes.leading():
        for name, weights in (("raw", raw), ("averaged", averaged)):
            _draw_grid(run / "grids" / f"{state.images:012d}-{name}.png", config, weights, device)
    processes.wait()


def _draw_grid(path: Path, config: RunConfig, weights: Mapping[str, Tensor], device: torch.device) -> None:
    """Samples from fixed seeds as one picture."""
    denoiser = build_denoiser(config.model).eval()
    denoiser.network.load_state_dict(weights)
    pixels = generate(Model(denoiser, config, 0), SampleOptions(), range(GRID), device)
    save_png(path, grid_image(pixels, columns=GRID // 2))


def memory_in_use(device: torch.device) -> int:
    """Most bytes so far: allocated on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
