"""The two-threshold rule (paper, algorithm 1)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["thresholds"]

Floats = NDArray[np.float64]
REFINEMENT = 300  # points between two levels when the thresholds are located


def thresholds(u: Floats, low: Floats, high: Floats, alpha: float) -> tuple[float, float]:
    """The quantiles u1 and u2 of the two-threshold rule; NaN where a curve never reaches ``alpha``.

    Args:
        u: increasing quantiles of the levels, ``[L]``; the curves are linear between them and
            constant outside.
        low, high: mean agreement with either limit, ``[L]``.
        alpha: mean agreement that a stage must keep.
    """
    steps = np.linspace(0, len(u) - 1, REFINEMENT * (len(u) - 1) + 1)
    fine = np.unique(np.concatenate([[0.0], np.interp(steps, np.arange(len(u)), u), [1.0]]))
    below = _running_mean(fine, np.interp(fine, u, low))
    above = _running_mean(1 - fine[::-1], np.interp(fine[::-1], u, high))[::-1]
    first, second = fine[below >= alpha], fine[above >= alpha]
    return (first.max() if len(first) else np.nan), (second.min() if len(second) else np.nan)


def _running_mean(u: Floats, curve: Floats) -> Floats:
    """Mean of the piecewise linear curve over ``[0, u]``."""
    integral = np.concatenate([[0.0], np.cumsum(np.diff(u) * (curve[1:] + curve[:-1]) / 2)])
    return np.where(u > 0, integral / np.where(u > 0, u, 1), curve)
