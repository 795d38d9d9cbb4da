"""UniPC: a multistep predictor, corrected by the evaluation that the next step needs anyway."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
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

__all__ = ["SOLVERS", "unipc"]

Variant = Literal["bh1", "bh2"]
History = list[tuple[float, Tensor]]
"""Pairs of level and denoised image, the latest first."""


def unipc(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    order: int = 2,
    variant: Variant = "bh2",
    noise: Noise | None = None,
    callback: Callback = ignore,
    edit: Edit = keep,
    restart_at: Sequence[float] = (),
) -> Tensor:
    """UniPC with data prediction (Zhao et al. 2023, algorithms 5 to 8); one evaluation a step.

    The order of the corrector is one more than that of the predictor. The first steps, those
    after a restart and a step to 0 have lower orders.

    Args:
        denoiser, x, sigmas, noise, callback, edit, restart_at: as for every solver.
        order: of the predictor, 1 to 3.
        variant: ``B(h)`` of the paper, h or exp(h) - 1.
    """
    history: History = []
    start: Tensor | None = None
    used = 1
    for step, s, t in steps(sigmas):
        denoised = denoiser(x, s)
        if history and restarts(history[0][0], s, restart_at):
            history = []
        if history and start is not None:
            x = _update(start, history[:used], s, variant, denoised)
        callback(step, s, x, denoised)
        history = [(s, denoised), *history][:order]
        used = len(history) if t > 0 else 1
        start, end = x, _update(x, history[:used], t, variant)
        x = edit(step, end)
        start = start if x is end else None  # an edited state is not corrected
    return x


def _update(
    x: Tensor, history: History, t: float, variant: Variant, corrected: Tensor | None = None
) -> Tensor:
    """The step from the latest level in the history to t.

    Args:
        x: state at that level.
        history: evaluations to use, the latest first.
        t: next level.
        variant: of UniPC.
        corrected: the denoised image at t, for the corrector.
    """
    s, value = history[0]
    end = value - (t / s) * (value - x)
    if t == 0:
        return end
    h = math.log(s / t)
    differences = [(math.log(s / level) / h, old - value) for level, old in history[1:]]
    if corrected is not None:
        differences.append((1.0, corrected - value))
    weights = _weights([ratio for ratio, _ in differences], h, variant)
    for weight, (ratio, difference) in zip(weights, differences, strict=True):
        end = end + (weight / ratio) * difference
    return end


def _weights(ratios: Sequence[float], h: float, variant: Variant) -> Sequence[float]:
    """``-B(h) rho`` of the differences: the paper's linear system, or 1/2 where it has one."""
    scale = -h if variant == "bh1" else math.expm1(-h)
    if not ratios:
        return []
    if len(ratios) == 1:
        return [-scale / 2]  # of the predictor of order 2 and of the corrector of order 1
    phi, factorial, right = math.expm1(-h) / -h - 1, 1, []
    for k in range(1, len(ratios) + 1):
        right.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    matrix = np.power.outer(np.array(ratios), np.arange(len(ratios))).T
    found: Sequence[float] = (-scale * np.linalg.solve(matrix, right)).tolist()
    return found


SOLVERS = (
    SolverEntry("unipc", unipc, order=3, about="UniPC-2, predictor and corrector"),
    SolverEntry("unipc-3", partial(unipc, order=3), order=4, about="UniPC-3"),
    SolverEntry("unipc-bh1", partial(unipc, variant="bh1"), order=3, about="UniPC-2 with B(h) = h"),
)
