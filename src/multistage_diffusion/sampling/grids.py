"""Grids: the noise levels that a solver visits. To add one, write it here and list it below."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["GRIDS", "GridName", "checked_steps", "karras_grid", "log_snr_grid"]

Grid = Callable[[int, float, float], Tensor]


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """``steps`` levels evenly spaced in ``sigma^(1/rho)``, then 0: float64 ``[steps + 1]``.

    Karras et al. 2022, eq. 5.
    """
    high = sigma_max ** (1 / rho)
    low = sigma_min ** (1 / rho)
    ramp = torch.linspace(high, low, checked_steps(steps), dtype=torch.float64)
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


def log_snr_grid(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``steps`` levels evenly spaced in ln sigma, then 0: float64 ``[steps + 1]``."""
    high = math.log(sigma_max)
    low = math.log(sigma_min)
    levels = torch.linspace(high, low, checked_steps(steps), dtype=torch.float64).exp()
    return torch.cat([levels, levels.new_zeros(1)])


def checked_steps(steps: int) -> int:
    """The number of steps.

    Raises:
        BadInput: if there are none.
    """
    if steps < 1:
        raise BadInput(f"Sampling needs at least 1 step, not {steps}.")
    return steps


GRIDS: dict[str, Grid] = {"karras": karras_grid, "log-snr": log_snr_grid}
"""The grids by the names that the command line uses."""

if TYPE_CHECKING:
    GridName = str
else:
    GridName = Literal[tuple(GRIDS)]
