"""DPM-Solver and DPM-Solver++: exponential integrators in ``lambda = -ln sigma``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling.grids import checked_steps, log_snr_grid

__all__ = ["Prediction", "dpm_multistep", "dpm_singlestep", "dpmpp_2m", "singlestep_orders"]


def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). Order 2, one evaluation for each step.

    The exact solution for a denoiser that is linear in ``lambda = -ln sigma``, extrapolated from
    the last two evaluations; the first step and a step to 0 are of order 1.
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


@dataclass(frozen=True)
class Prediction:
    """What a DPM-Solver holds constant over a step: the noise (DPM-Solver), or the data (DPM-
    Solver++).

    With ``h = ln(s / t)`` for a step from the level s to t and ``phi(z) = expm1(z)``, the first-
    order step is

        noise:  x - t phi(h) eps,       data:  (t / s) x - phi(-h) D.

    A step to 0 is of this order.
    """

    data: bool

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
        """The noise or the data that the denoiser predicts."""
        denoised = denoiser(x, sigma)
        return denoised if self.data else (x - denoised) / sigma

    def step(
        self, x: Tensor, s: float, t: float, value: Tensor, slope: Tensor | None = None
    ) -> Tensor:
        """The exact step for a prediction that is ``value``, plus ``slope`` times the share of h
        that has passed (t > 0).
        """
        base, scale = (
            ((t / s) * x, t / s - 1) if self.data else (x, s - t)
        )  # scale is phi(-h), or t phi(h)
        x = base - scale * value
        if slope is None:
            return x
        h = math.log(s / t)
        return x - (-scale / h - 1 if self.data else scale / h - t) * slope


def dpm_multistep(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, data: bool = False) -> Tensor:
    """Multi-step DPM-Solver of order 2 (Lu et al. 2022); one evaluation for each step.

    Args:
        denoiser, x, sigmas: as for every solver.
        data: predict the data (DPM-Solver++) and not the noise (DPM-Solver).
    """
    predict = Prediction(data)
    before: tuple[float, Tensor] | None = None
    for s, t in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        value = estimate = predict(denoiser, x, s)
        if before is not None and t > 0:
            estimate = value + (value - before[1]) * (
                math.log(s / t) / (2 * math.log(before[0] / s))
            )
        x, before = predict.step(x, s, t, estimate), (s, value)
    return x


def singlestep_orders(evaluations: int) -> list[int]:
    """Orders of the steps that use so many evaluations: threes, then what is left (Lu et al. 2022,
    "DPM-Solver-fast").
    """
    threes, left = divmod(checked_steps(evaluations), 3)
    return [3] * (threes - 1) + [2, 1] if left == 0 else [3] * threes + [left]


def dpm_singlestep(
    denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, orders: Sequence[int], data: bool = False
) -> Tensor:
    """Single-step DPM-Solver (Lu et al. 2022, algorithms 1 and 2). No step may end at 0.

    Args:
        denoiser, x, sigmas: as for every solver.
        orders: order of each step, 1 to 3, which is also its number of evaluations.
        data: predict the data (DPM-Solver++) and not the noise (DPM-Solver).
    """
    predict = Prediction(data)
    for s, t, order in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), orders, strict=True):
        x = _singlestep(predict, denoiser, x, s, t, order)
    return x


def _by_evaluations(denoiser: Denoiser, x: Tensor, sigmas: Tensor, *, data: bool) -> Tensor:
    """Single steps of order 3 with as many evaluations as there are steps in ``sigmas``, evenly
    spaced in ln sigma.
    """
    to_zero = float(sigmas[-1]) == 0
    low, evaluations = float(sigmas[-1 - to_zero]), len(sigmas) - 1 - to_zero
    if evaluations:
        orders = singlestep_orders(evaluations)
        levels = log_snr_grid(len(orders) + 1, low, float(sigmas[0]))[:-1]
        x = dpm_singlestep(denoiser, x, levels, orders=orders, data=data)
    return denoiser(x, low) if to_zero else x


def _singlestep(
    predict: Prediction, denoiser: Denoiser, x: Tensor, s: float, t: float, order: int
) -> Tensor:
    """One step with inner levels evenly spaced in ln sigma."""
    start = predict(denoiser, x, s)
    if order == 1:
        return predict.step(x, s, t, start)
    inner = [s ** (1 - k / order) * t ** (k / order) for k in range(1, order)]
    first = predict(denoiser, predict.step(x, s, inner[0], start), inner[0])
    if order == 2:
        return predict.step(x, s, t, first)
    second = predict(denoiser, predict.step(x, s, inner[1], start, 2 * (first - start)), inner[1])
    return predict.step(x, s, t, start, 1.5 * (second - start))
