"""Solvers of the probability flow ODE in sigma. To add one, write it here and list it below."""

from collections.abc import Sequence

from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling.solver import Callback, Noise, SolverEntry, ignore, steps

__all__ = ["SOLVERS", "ddim", "heun"]


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    callback: Callback = ignore,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """DDIM with eta 0 (Song et al. 2021): Euler steps in sigma; one evaluation for each step."""
    for step, sigma, target in steps(sigmas):
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        x = denoised + (target / sigma) * (x - denoised)
    return x


def heun(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    callback: Callback = ignore,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Heun's method in sigma (Karras et al. 2022, algorithm 1).

    Two evaluations for each step; a step to 0 has one.
    """
    for step, sigma, target in steps(sigmas):
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        slope = (x - denoised) / sigma
        if target > 0:
            euler = x + (target - sigma) * slope
            slope = (slope + (euler - denoiser(euler, target)) / target) / 2
        x = x + (target - sigma) * slope
    return x


SOLVERS = (
    SolverEntry("heun", heun, order=2, about="two evaluations of the network a step"),
    SolverEntry("ddim", ddim, order=1, about="Euler steps in sigma"),
)
