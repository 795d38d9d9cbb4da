"""Stochastic solvers: a step to a lower level than the next one, then new noise up to it.

To add a solver of this kind, write it here and list it at the end.
"""

import math
from collections.abc import Sequence
from functools import partial

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
    midpoint_ratio,
    restarts,
    steps,
)

__all__ = ["SOLVERS", "ddim", "dpmpp_2m_sde", "dpmpp_sde"]


def _split(sigma: float, target: float, eta: float) -> tuple[float, float]:
    """The level to step down to, and the deviation of the noise that leads up to the target.

    Song et al. 2021 (DDIM), eq. 16, in sigma: for eta 1 the posterior of DDPM.
    """
    up = min(target, eta * target * math.sqrt(1 - (target / sigma) ** 2))
    return math.sqrt(target**2 - up**2), up


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """DDIM (Song et al. 2021); with eta 1 it is DDPM's ancestral sampling, or "Euler ancestral".

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        eta: how much of the noise is new in each step, 0 to 1.
    """
    for step, sigma, target in steps(sigmas):
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        down, up = _split(sigma, target, eta)
        x = denoised + (down / sigma) * (x - denoised)
        if up:
            x = x + up * drawn(noise, step, x)
        x = edit(step, x)
    return x


def dpmpp_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """DPM-Solver++ (SDE), single steps of order 2 (Lu et al. 2022); two evaluations for each step.

    The midpoint in log sigma is reached with noise of its own, draws 2 n and 2 n + 1 of step n.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        eta: as for ``ddim``.
    """
    for step, sigma, target in steps(sigmas):
        denoised = denoiser(x, sigma)
        callback(step, sigma, x, denoised)
        if target > 0:
            middle = math.sqrt(sigma * target)
            down, up = _split(sigma, middle, eta)
            inner = denoised + (down / sigma) * (x - denoised)
            if up:
                inner = inner + up * drawn(noise, 2 * step, x)
            denoised = denoiser(inner, middle)
        down, up = _split(sigma, target, eta)
        x = denoised + (down / sigma) * (x - denoised)
        if up:
            x = x + up * drawn(noise, 2 * step + 1, x)
        x = edit(step, x)
    return x


def dpmpp_2m_sde(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 1.0,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """DPM-Solver++(2M) for the stochastic equation (Lu et al. 2022).

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        eta: how much of the noise is new; 0 is DPM-Solver++(2M).
    """
    before: tuple[float, Tensor] | None = None
    for step, s, t in steps(sigmas):
        denoised = denoiser(x, s)
        callback(step, s, x, denoised)
        estimate = denoised
        if before is not None and t > 0 and not restarts(before[0], s, restart_at):
            estimate = denoised + (denoised - before[1]) * midpoint_ratio(before[0], s, t)
        kept = (t / s) ** (1 + eta)
        x = kept * x + (1 - kept) * estimate
        if eta and t > 0:
            x = x + t * math.sqrt(1 - (t / s) ** (2 * eta)) * drawn(noise, step, x)
        x, before = edit(step, x), (s, denoised)
    return x


SOLVERS = (
    SolverEntry("ddim", ddim, order=1, about="euler, or stochastic with --eta", takes=("eta",)),
    SolverEntry(
        "ddpm", partial(ddim, eta=1.0), order=1, about="ancestral sampling", stochastic=True
    ),
    SolverEntry(
        "dpmpp-sde",
        dpmpp_sde,
        order=2,
        about="DPM-Solver++ (SDE), stochastic, two evaluations a step",
        takes=("eta",),
        stochastic=True,
    ),
    SolverEntry(
        "dpmpp-2m-sde",
        dpmpp_2m_sde,
        order=2,
        about="DPM-Solver++(2M), stochastic",
        takes=("eta",),
        stochastic=True,
    ),
)
