"""Solvers of the probability flow ODE ``dx/dsigma = (x - D(x; sigma)) / sigma`` in sigma."""

from torch import Tensor

from multistage_diffusion.denoiser import Denoiser

__all__ = ["ddim", "heun"]


def ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """DDIM with eta 0 (Song et al. 2021):

    Euler steps in sigma. Order 1, one evaluation for each step.
    """
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        denoised = denoiser(x, sigma)
        x = denoised + (target / sigma) * (x - denoised)
    return x


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun's method in sigma (Karras et al. 2022, algorithm 1).

    Order 2, two evaluations for each step; a step to 0 has one.
    """
    for sigma, target in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        slope = (x - denoiser(x, sigma)) / sigma
        euler = x + (target - sigma) * slope
        if target > 0:
            slope = (slope + (euler - denoiser(euler, target)) / target) / 2
        x = x + (target - sigma) * slope
    return x
