"""Noise levels that a solver visits."""

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["karras_grid", "log_snr_grid"]


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """``steps`` levels evenly spaced in ``sigma^(1/rho)``, then 0 (Karras et al. 2022, eq. 5):
    float64 ``[steps + 1]``.
    """
    ramp = torch.linspace(
        sigma_max ** (1 / rho), sigma_min ** (1 / rho), checked_steps(steps), dtype=torch.float64
    )
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


def log_snr_grid(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``steps`` levels evenly spaced in ln sigma, then 0: float64 ``[steps + 1]``."""
    low, high = np.log(sigma_min), np.log(sigma_max)
    return torch.cat(
        [
            torch.linspace(high, low, checked_steps(steps), dtype=torch.float64).exp(),
            torch.zeros(1, dtype=torch.float64),
        ]
    )


def checked_steps(steps: int) -> int:
    if steps < 1:
        raise BadInput(f"Sampling needs at least 1 step, not {steps}.")
    return steps
