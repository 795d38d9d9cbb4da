"""DPM-Solver++ with steps as long as a tolerance allows, for each image separately."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.preconditioning import column
from multistage_diffusion.sampling.solver import Callback, Edit, Noise, SolverEntry, ignore, keep

__all__ = ["SOLVERS", "dpmpp_adaptive"]

FIRST_STEP = 0.05  # in log sigma
SMALLEST = 1e-9  # step
SAFETY = 0.9
MOST_GROWTH = 5.0
ABSOLUTE = 0.0078  # one grey level of 256


def dpmpp_adaptive(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    order: int = 3,
    tolerance: float = 0.05,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Single steps of DPM-Solver++ whose error is estimated by a step of one order less.

    Lu et al. 2022, "DPM-Solver-12" and "-23", with data prediction. Each image has levels of its
    own, so that it is the same in any batch; the denoiser gets a level for each, and images that
    are finished wait for the others. Of ``sigmas`` only the first and the last positive level are
    used; the callback gets the largest level.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        order: 2 or 3, the number of evaluations of a step.
        tolerance: of the error of a step, relative to the state.
    """
    low = float(sigmas[-1]) or float(sigmas[-2])
    log = torch.full((len(x),), math.log(float(sigmas[0])), dtype=torch.float64)
    h, step = torch.full_like(log, FIRST_STEP), 0
    while (left := log - math.log(low)).max() > SMALLEST:
        length = torch.minimum(h, left).clamp(min=SMALLEST)
        end, lower, denoised = _step(denoiser, x, log, length, order)
        callback(step, float(log.exp().max()), x, denoised)
        error = _error(x, end, lower, tolerance)
        good = (error <= 1) & (left > SMALLEST)
        x = edit(step, torch.where(column(good, x) > 0, end, x))
        log = torch.where(good, log - length, log)
        factor = SAFETY * error.clamp(min=1e-10) ** (-1 / order)
        h = length * factor.clamp(0.1, MOST_GROWTH)
        step += 1
    if float(sigmas[-1]) > 0:
        return x
    return edit(step, _to_zero(denoiser, x, low, callback, step))


def _to_zero(denoiser: Denoiser, x: Tensor, low: float, callback: Callback, step: int) -> Tensor:
    denoised = denoiser(x, low)
    callback(step, low, x, denoised)
    return denoised


def _step(
    denoiser: Denoiser, x: Tensor, log: Tensor, h: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """States after a step of an order and of one less, and the first denoised image.

    The inner levels are evenly spaced in log sigma; one less is first order, or second.
    """
    start = denoiser(x, log.exp())
    inner = _exponential(x, h / order, start)
    first = denoiser(inner, (log - h / order).exp()) - start
    if order == 2:
        return _exponential(x, h, start, 2 * first), _exponential(x, h, start), start
    inner = _exponential(x, 2 * h / 3, start, 2 * first)
    second = denoiser(inner, (log - 2 * h / 3).exp()) - start
    third = _exponential(x, h, start, 1.5 * second)
    return third, _exponential(x, h, start, 3 * first), start


def _exponential(x: Tensor, h: Tensor, value: Tensor, slope: Tensor | None = None) -> Tensor:
    """The exact step of lengths ``[B]`` for a data prediction linear in log sigma."""
    weight = column(-torch.expm1(-h), x)
    x = column(torch.exp(-h), x) * x + weight * value
    return x if slope is None else x + (1 - weight / column(h, x)) * slope


def _error(start: Tensor, end: Tensor, lower: Tensor, tolerance: float) -> Tensor:
    """Error of each image, divided by the tolerated error: float64 ``[B]``."""
    scale = torch.maximum(start.abs(), end.abs()) * tolerance
    part = (end - lower) / scale.clamp(min=ABSOLUTE)
    return part.flatten(1).square().mean(1).sqrt().cpu().double()


EACH = "step sizes follow --tolerance, for each image separately"
SOLVERS = (
    SolverEntry(
        "dpmpp-12",
        partial(dpmpp_adaptive, order=2),
        order=2,
        about=f"adaptive DPM-Solver++ of order 2: {EACH}",
        takes=("tolerance",),
    ),
    SolverEntry(
        "dpmpp-23",
        dpmpp_adaptive,
        order=3,
        about="the same of order 3",
        takes=("tolerance",),
    ),
)
