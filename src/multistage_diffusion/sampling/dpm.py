"""DPM-Solver and DPM-Solver++: exponential integrators in ``lambda = -ln sigma``.

To add a solver of this kind, write it here and list it at the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling.grids import checked_steps, log_snr_grid
from multistage_diffusion.sampling.solver import (
    Callback,
    Edit,
    Noise,
    SolverEntry,
    ignore,
    keep,
    restarts,
    steps,
)
from multistage_diffusion.schedule import Schedule

__all__ = [
    "SOLVERS",
    "Inner",
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2m",
    "even_in_clock",
    "even_in_log",
    "singlestep_orders",
]

FEW_STEPS = 10
"""With fewer, the published multistep solver ends with lower orders."""

Inner = Callable[[float, float, int], Sequence[float]]
"""The ``order - 1`` levels inside a step, as a function of both ends and the order."""


@dataclass(frozen=True)
class Prediction:
    """What a DPM-Solver holds constant over a step.

    DPM-Solver holds the noise, DPM-Solver++ the data. With ``h = ln(s / t)`` for a step from the
    level s to t and ``phi(z) = expm1(z)``, the first-order step is

        noise:  x - t phi(h) eps,       data:  (t / s) x - phi(-h) D.

    A step to 0 is of this order.
    """

    data: bool

    def of(self, x: Tensor, sigma: float, denoised: Tensor) -> Tensor:
        """The noise or the data that a denoised image means."""
        return denoised if self.data else (x - denoised) / sigma

    def step(self, x: Tensor, s: float, t: float, value: Tensor, *powers: Tensor) -> Tensor:
        """The exact step for a prediction that is a polynomial in the share of h that has passed.

        Args:
            x: state at s.
            s: noise level.
            t: next noise level, positive if there are powers.
            value: the prediction at s.
            powers: coefficients of the first power, the second power and so on.
        """
        x = (t / s) * x if self.data else x
        weight = t / s - 1 if self.data else s - t  # phi(-h), or t phi(h)
        x = x - weight * value
        h = math.log(s / t) if powers else math.inf
        for power, coefficient in enumerate(powers, 1):  # integrals by parts
            weight = power * -weight / h - 1 if self.data else power * weight / h - t
            x = x - weight * coefficient
        return x


def dpm_multistep(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    order: int = 2,
    data: bool = False,
    published: bool = False,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Multistep DPM-Solver (Lu et al. 2022); one evaluation for each step.

    The prediction is extrapolated from the last evaluations. The first steps, those after a restart
    and a step to 0 have lower orders. Of order 3, the published solver has half of the last term,
    and with that order 2; here it is whole unless asked for.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        order: 1 to 3.
        data: predict the data (DPM-Solver++) instead of the noise (DPM-Solver).
        published: take half of the last term of order 3, and if there are fewer than 10 steps
            between positive levels, give the last ones the orders 2 and 1, as the authors' program
            does.
    """
    prediction = Prediction(data)
    count = int((sigmas > 0).sum()) - 1
    history: list[tuple[float, Tensor]] = []
    for step, s, t in steps(sigmas):
        denoised = denoiser(x, s)
        callback(step, s, x, denoised)
        if history and restarts(history[0][0], s, restart_at):
            history = []
        history = [(s, prediction.of(x, s, denoised)), *history][:order]
        final = published and count < FEW_STEPS
        most = 1 if t == 0 else count - step if final else order
        x = edit(step, _multistep(prediction, x, history[:most], t, 0.5 if published else 1.0))
    return x


def _multistep(
    prediction: Prediction,
    x: Tensor,
    history: Sequence[tuple[float, Tensor]],
    t: float,
    share: float = 1.0,
) -> Tensor:
    """A step whose order is the number of evaluations, the latest first; the last term's share."""
    (s, value), *earlier = history
    if not earlier:
        return prediction.step(x, s, t, value)
    h = math.log(s / t)
    first = math.log(earlier[0][0] / s) / h
    slope = (value - earlier[0][1]) / first
    if len(earlier) == 1:
        return prediction.step(x, s, t, value + slope / 2)  # the paper's form of order 2
    second = math.log(earlier[1][0] / earlier[0][0]) / h
    curvature = (slope - (earlier[0][1] - earlier[1][1]) / second) / (first + second)
    return prediction.step(x, s, t, value, slope + first * curvature, share * curvature)


dpmpp_2m = partial(dpm_multistep, data=True)
"""DPM-Solver++(2M) (Lu et al. 2022, algorithm 2)."""


def singlestep_orders(evaluations: int, order: int = 3) -> list[int]:
    """Orders of the steps that use a number of evaluations: the highest, then what is left.

    Lu et al. 2022, "DPM-Solver-fast", which of order 3 ends with 2 and 1 where nothing is left.
    """
    if order < 3:
        whole, left = divmod(checked_steps(evaluations), order)
        return [order] * whole + [1] * left
    threes, left = divmod(checked_steps(evaluations), 3)
    return [3] * (threes - 1) + [2, 1] if left == 0 else [3] * threes + [left]


def even_in_log(s: float, t: float, order: int) -> list[float]:
    """The levels inside a step, evenly spaced in ln sigma."""
    return [s ** (1 - k / order) * t ** (k / order) for k in range(1, order)]


def even_in_clock(schedule: Schedule, power: float = 1.0) -> Inner:
    """Levels inside steps, evenly spaced in a power of the schedule's own clock.

    The authors take these where the steps are so spaced too ("time uniform"; of power 0.5, "time
    quadratic").
    """

    def inner(s: float, t: float, order: int) -> list[float]:
        high, low = (float(schedule.to_clock(level)) ** power for level in (s, t))
        times = torch.linspace(high, low, order + 1, dtype=torch.float64)[1:-1] ** (1 / power)
        levels: list[float] = schedule.from_clock(times).tolist()
        return levels

    return inner


def dpm_singlestep(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    orders: Sequence[int],
    data: bool = False,
    inner: Inner = even_in_log,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Single-step DPM-Solver (Lu et al. 2022, algorithms 1 and 2). No step may end at 0.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        orders: order of each step, 1 to 3, which is also its number of evaluations.
        data: predict the data (DPM-Solver++) instead of the noise (DPM-Solver).
        inner: the levels inside a step.
    """
    prediction = Prediction(data)
    for (step, s, t), order in zip(steps(sigmas), orders, strict=True):
        denoised = denoiser(x, s)
        callback(step, s, x, denoised)
        levels = [*inner(s, t, order), t]
        x = edit(step, _singlestep(prediction, denoiser, x, s, levels, denoised))
    return x


def _singlestep(
    prediction: Prediction,
    denoiser: Denoiser,
    x: Tensor,
    s: float,
    levels: Sequence[float],
    denoised: Tensor,
) -> Tensor:
    """One step from s through inner levels to the last one; its order is their number."""
    start = prediction.of(x, s, denoised)
    *inner, t = levels
    if not inner:
        return prediction.step(x, s, t, start)
    shares = [math.log(s / level) / math.log(s / t) for level in inner]

    def change(state: Tensor, sigma: float) -> Tensor:
        return prediction.of(state, sigma, denoiser(state, sigma)) - start

    first = change(prediction.step(x, s, inner[0], start), inner[0])
    if len(inner) == 1:
        return prediction.step(x, s, t, start + first / (2 * shares[0]))
    state = prediction.step(x, s, inner[1], start, shares[1] / shares[0] * first)
    second = change(state, inner[1])
    return prediction.step(x, s, t, start, second / shares[1])


def _by_evaluations(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    data: bool,
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """Single steps of order 3, evenly spaced in ln sigma.

    They have as many evaluations as ``sigmas`` has steps; only its first and last positive level
    are used.
    """
    to_zero = float(sigmas[-1]) == 0
    low = float(sigmas[-1 - to_zero])
    evaluations = len(sigmas) - 1 - to_zero
    step = 0
    if evaluations:
        orders = singlestep_orders(evaluations)
        levels = log_snr_grid(len(orders) + 1, low, float(sigmas[0]))[:-1]
        x = dpm_singlestep(
            denoiser, x, levels, orders=orders, data=data, callback=callback, edit=edit
        )
        step = len(orders)
    if not to_zero:
        return x
    denoised = denoiser(x, low)
    callback(step, low, x, denoised)
    return edit(step, denoised)


EVENLY = "one evaluation a step, spaced in log sigma"
SOLVERS = (
    SolverEntry("dpmpp-2m", dpmpp_2m, order=2, about="DPM-Solver++(2M), multistep"),
    SolverEntry(
        "dpmpp-3m", partial(dpm_multistep, order=3, data=True), order=3, about="the same of order 3"
    ),
    SolverEntry("dpm-2m", dpm_multistep, order=2, about="DPM-Solver, multistep"),
    SolverEntry("dpm-3m", partial(dpm_multistep, order=3), order=3, about="the same of order 3"),
    SolverEntry(
        "dpm-3s",
        partial(_by_evaluations, data=False),
        order=3,
        about=f"DPM-Solver, single steps of order 3, {EVENLY}",
    ),
    SolverEntry(
        "dpmpp-3s",
        partial(_by_evaluations, data=True),
        order=3,
        about=f"DPM-Solver++, single steps of order 3, {EVENLY}",
    ),
)
