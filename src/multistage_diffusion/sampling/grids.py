"""Grids: the noise levels that a solver visits. To add one, write it here and list it below."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import DDPM, Schedule

__all__ = [
    "GRIDS",
    "GRID_HELP",
    "GridName",
    "checked_steps",
    "karras_grid",
    "log_snr_grid",
    "read_levels",
    "step_grid",
    "time_grid",
]

Ends = tuple[float, float]
DISCRETE_STEPS = 1000  # of a schedule that is continuous


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """``steps`` levels evenly spaced in ``sigma^(1/rho)``, then 0: float64 ``[steps + 1]``.

    Karras et al. 2022, eq. 5.
    """
    high = sigma_max ** (1 / rho)
    low = sigma_min ** (1 / rho)
    ramp = torch.linspace(high, low, checked_steps(steps), dtype=torch.float64)
    return _to_zero(ramp**rho)


def log_snr_grid(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``steps`` levels evenly spaced in ln sigma, then 0: float64 ``[steps + 1]``."""
    high = math.log(sigma_max)
    low = math.log(sigma_min)
    levels = torch.linspace(high, low, checked_steps(steps), dtype=torch.float64).exp()
    return _to_zero(levels)


def checked_steps(steps: int) -> int:
    """The number of steps.

    Raises:
        BadInput: if there are none.
    """
    if steps < 1:
        raise BadInput(f"Sampling needs at least 1 step, not {steps}.")
    return steps


def time_grid(steps: int, schedule: Schedule, ends: Ends | None = None) -> Tensor:
    """``steps`` levels evenly spaced in the schedule's own clock, then 0: float64 ``[steps + 1]``.

    They are between the smallest and the largest level of ``ends``, by default the schedule's.

    The clock of VP is t (DPM-Solver's "time uniform"), that of EDM sigma itself, that of DDPM the
    step.
    """
    low, high = map(schedule.to_clock, ends or schedule.sampling_range)
    times = torch.linspace(float(high), float(low), checked_steps(steps), dtype=torch.float64)
    return _to_zero(schedule.from_clock(times))


def step_grid(steps: int, schedule: Schedule) -> Tensor:
    """``steps`` levels of a discrete schedule, evenly spaced as DDIM has them, then 0.

    The steps ``(steps - 1 - k) * (N // steps)`` of N ("leading").

    Raises:
        BadInput: if the schedule has no steps, or fewer.
    """
    count = schedule.steps if isinstance(schedule, DDPM) else DISCRETE_STEPS
    if not 1 <= steps <= count:
        raise BadInput(f"The grid step takes 1 to {count} steps, not {steps}.")
    index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (count // steps)
    if isinstance(schedule, DDPM):
        return _to_zero(schedule.from_clock(index))
    return _to_zero(schedule.sigma(index / (count - 1)))


def _to_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


@dataclass(frozen=True)
class GridEntry:
    """A grid with its name and help."""

    name: str
    levels: Callable[[int, Schedule, Ends], Tensor]
    """From the number of steps, the schedule, and the smallest and largest level."""
    about: str
    """A few words for the help."""


ENTRIES = (
    GridEntry(
        "karras", lambda n, _, ends: karras_grid(n, *ends), "evenly spaced in sigma^(1/7) (EDM)"
    ),
    GridEntry("log-snr", lambda n, _, ends: log_snr_grid(n, *ends), "evenly spaced in log sigma"),
    GridEntry(
        "time", time_grid, "evenly spaced in the schedule's own time: t for vp, sigma for edm"
    ),
    GridEntry(
        "step",
        lambda n, s, _: step_grid(n, s),
        "every n-th step of a discrete schedule, as in DDIM",
    ),
)
GRIDS = {entry.name: entry for entry in ENTRIES}
"""The grids by the names that the command line uses."""

GRID_HELP = (
    "; ".join(f"{entry.name}: {entry.about}" for entry in ENTRIES)
    + "; or a text file of noise levels, largest first."
)


def read_levels(path: Path) -> tuple[float, ...]:
    """The noise levels in a text file, separated by white space; a last 0 is left out.

    Raises:
        BadInput: if the file cannot be read or holds anything else.
    """
    try:
        levels = tuple(float(word) for word in path.read_text().split())
    except OSError as error:
        raise BadInput(
            f"There is no grid {path}: it is none of {', '.join(GRIDS)} and no file of levels."
        ) from error
    except ValueError as error:
        raise BadInput(f"{path} is no list of noise levels: {error}.") from error
    return levels[:-1] if levels and levels[-1] == 0 else levels


if TYPE_CHECKING:
    GridName = str
else:
    GridName = Literal[tuple(GRIDS)]
