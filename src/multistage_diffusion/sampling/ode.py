"""Euler's and Heun's methods in sigma, deterministic or with EDM's churn.

To add a solver of this kind, write it here and list it at the end.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling.solver import (
    Callback,
    Edit,
    Noise,
    SolverEntry,
    drawn,
    ignore,
    keep,
    steps,
)

__all__ = ["SOLVERS", "euler", "heun"]

MOST_CHURN = math.sqrt(2) - 1
CHURN = ("churn", "churn_range", "churn_noise")
EVERYWHERE = (0.0, math.inf)


def euler(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = EVERYWHERE,
    churn_noise: float = 1.0,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Euler's method in sigma; one evaluation for each step. Without churn it is DDIM.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        churn, churn_range, churn_noise: as for ``heun``.
    """
    gammas = _gammas(sigmas, churn, churn_range)
    for (step, sigma, target), gamma in zip(steps(sigmas), gammas, strict=True):
        x, sigma = _churned(x, sigma, gamma, churn_noise, noise, step)
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        x = edit(step, denoised + (target / sigma) * (x - denoised))
    return x


def heun(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = EVERYWHERE,
    churn_noise: float = 1.0,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Heun's method in sigma (Karras et al. 2022, algorithms 1 and 2).

    Two evaluations for each step; a step to 0 has one.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        churn: noise that is added before steps, ``S_churn``: over all steps together, as a factor
            on sigma.
        churn_range: the noise levels at which it is added, ``S_tmin`` and ``S_tmax``.
        churn_noise: its standard deviation, ``S_noise``.
    """
    gammas = _gammas(sigmas, churn, churn_range)
    for (step, sigma, target), gamma in zip(steps(sigmas), gammas, strict=True):
        x, sigma = _churned(x, sigma, gamma, churn_noise, noise, step)
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        slope = (x - denoised) / sigma
        if target > 0:
            end = x + (target - sigma) * slope
            slope = (slope + (end - denoiser(end, target)) / target) / 2
        x = edit(step, x + (target - sigma) * slope)
    return x


def _gammas(sigmas: Tensor, churn: float, within: tuple[float, float]) -> list[float]:
    """By which share each step raises its noise level first."""
    most = min(churn / (len(sigmas) - 1), MOST_CHURN)
    return [most * (within[0] <= sigma <= within[1]) for sigma in sigmas[:-1].tolist()]


def _churned(
    x: Tensor, sigma: float, gamma: float, scale: float, noise: Noise | None, step: int
) -> tuple[Tensor, float]:
    """State and level with noise added."""
    if not gamma:
        return x, sigma
    raised = sigma * (1 + gamma)
    return x + scale * math.sqrt(raised**2 - sigma**2) * drawn(noise, step, x), raised


SOLVERS = (
    SolverEntry("heun", heun, order=2, about="two evaluations of the network a step", takes=CHURN),
    SolverEntry("euler", euler, order=1, about="one evaluation a step, as all below", takes=CHURN),
)
