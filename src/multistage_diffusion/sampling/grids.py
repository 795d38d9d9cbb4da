"""Grids: the noise levels that a solver visits. To add one, write it here and list it below."""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
    "step_grid",
    "time_grid",
]

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


def time_grid(steps: int, schedule: Schedule) -> Tensor:
    """``steps`` levels evenly spaced in the schedule's own clock, then 0: float64 ``[steps + 1]``.

    The clock of VP is t (DPM-Solver's "time uniform"), that of EDM sigma itself, that of DDPM the
    step.
    """
    low, high = map(schedule.to_clock, schedule.sampling_range)
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
    """A grid as the command line offers it."""

    name: str
    levels: Callable[[int, Schedule], Tensor]
    """From the number of steps and the schedule, whose ends are those of the grid."""
    about: str
    """A few words for the help."""


ENTRIES = (
    GridEntry(
        "karras", lambda n, s: karras_grid(n, *s.sampling_range), "even in sigma^(1/7) (EDM)"
    ),
    GridEntry("log-snr", lambda n, s: log_snr_grid(n, *s.sampling_range), "even in log sigma"),
    GridEntry("time", time_grid, "even in the schedule's clock: t for vp, sigma for edm"),
    GridEntry("step", step_grid, "every n-th of a discrete schedule's steps, as DDIM"),
)
GRIDS = {entry.name: entry for entry in ENTRIES}
"""The grids by the names that the command line uses."""

GRID_HELP = "; ".join(f"{entry.name}: {entry.about}" for entry in ENTRIES) + "."

if TYPE_CHECKING:
    GridName = str
else:
    GridName = Literal[tuple(GRIDS)]
