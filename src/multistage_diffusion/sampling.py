"""Samplers: from noise to images along the probability flow ODE ``dx/dsigma = (x - D(x; sigma)) / sigma``.

A solver is a function of a denoiser, a starting point ``x ~ N(0, sigma_0^2 I)`` and decreasing noise levels
``sigma_0 > sigma_1 > ... >= 0``; it returns x at the last one. State and coefficients keep the dtype of ``x``.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.errors import BadInput

__all__ = ["SOLVERS", "Solver", "SolverName", "ddim", "dpmpp_2m", "heun", "karras_grid", "log_snr_grid", "noise"]

Solver = Callable[[Denoiser, Tensor, Tensor], Tensor]
SolverName = Literal["heun", "ddim", "dpmpp-2m"]


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """``steps`` levels evenly spaced in ``sigma^(1/rho)``, then 0 (Karras et al. 2022, eq. 5): float64 ``[steps + 1]``."""
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), _checked(steps), dtype=torch.float64)
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


def log_snr_grid(steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """``steps`` levels evenly spaced in ln sigma, then 0: float64 ``[steps + 1]``."""
    low, high = np.log(sigma_min), np.log(sigma_max)
    return torch.cat([torch.linspace(high, low, _checked(steps), dtype=torch.float64).exp(), torch.zeros(1, dtype=torch.float64)])


def _checked(steps: int) -> int:
    if steps < 1:
        raise BadInput(f"Sampling needs at least 1 step, not {steps}.")
    return steps


def noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Unit Gaussian noise for the images with these indices: float32 ``[len(indices), *shape]``, on the CPU.

    Each image's noise is a function of ``seed`` and its own index only, not of the batch or the device.
    """
    rows = [np.random.default_rng((seed, index)).standard_normal(tuple(shape), dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(rows))


def ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """DDIM with eta 0 (Song et al. 2021): Euler steps in sigma. Order 1, one evaluation for each step."""
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        denoised = denoiser(x, sigma)
        x = denoised + (target / sigma) * (x - denoised)
    return x


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun's method in sigma (Karras et al. 2022, algorithm 1). Order 2, two evaluations for each step; a step to 0 has one."""
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        slope = (x - denoiser(x, sigma)) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = (slope + (euler - denoiser(euler, target)) / target) / 2
        x = x + (target - sigma) * slope
    return x


def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Order 2, one evaluation for each step.

    The exact solution for a denoiser that is linear in ``lambda = -ln sigma``, extrapolated from the last two
    evaluations; the first step and a step to 0 are of order 1.
    """
    previous: tuple[float, Tensor] | None = None
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        denoised = estimate = denoiser(x, sigma)
        if previous is not None and target > 0:
            ratio = np.log(previous[0] / sigma) / np.log(sigma / target)
            estimate = denoised + (denoised - previous[1]) / (2 * ratio)
        x = estimate + (target / sigma) * (x - estimate)
        previous = (sigma, denoised)
    return x


SOLVERS: dict[SolverName, Solver] = {"heun": heun, "ddim": ddim, "dpmpp-2m": dpmpp_2m}
"""The solvers by the names the command line uses."""
