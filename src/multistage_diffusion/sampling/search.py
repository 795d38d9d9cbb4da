"""The best noise levels for a budget: a dynamic programme over the steps of a recorded path."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.sampling.path import Array, Path, StepRule, step_errors

__all__ = ["Levels", "best_levels"]

IntArray = NDArray[np.int64]
UNITS = 240
"""Parts that a budget is divided into; costs are rounded up to them."""


@dataclass(frozen=True)
class Levels:
    """Noise levels for a solver."""

    levels: tuple[float, ...]
    """Decreasing and positive; the last step goes to 0."""
    error: float
    """What the programme minimised: the sum of the squares of all steps' errors at the end."""
    cost: float
    """Of a sample."""


def best_levels(path: Path, rule: StepRule, costs: Sequence[float], budget: float) -> Levels | None:
    """The levels with the least squares of errors within a budget; None if it pays for no step.

    Errors count as they are at the end of the path, and as if they were independent.

    Args:
        path: recorded states at all levels that may be chosen.
        rule: the solver.
        costs: of an evaluation at each level but the last.
        budget: for all evaluations, in the same unit.
    """
    levels = np.array(path.levels)
    errors = (step_errors(path, rule) * path.gains) ** 2
    spending = _step_costs(rule, costs)
    prices = np.ceil(spending * UNITS / budget - 1e-9).astype(np.int64)
    table, origin = _fill(errors, prices)
    found = _trace(table, origin, prices)
    if found is None:
        return None
    chosen, error = found
    spent = float(sum(spending[step] for step in pairwise(chosen)))
    return Levels(tuple(levels[chosen[:-1]].tolist()), error, spent)


def _step_costs(rule: StepRule, costs: Sequence[float]) -> Array:
    """What a step from i to j costs: ``[N + 1, N + 1]``."""
    each = np.append(costs, 0.0)
    following = each if rule.evaluates_next else np.zeros_like(each)
    return each[:, None] + following[None, :]


def _fill(errors: Array, prices: IntArray) -> tuple[Array, Array]:
    """Least error of reaching level i from level h with c units, ``[h, i, c]``, and from where.

    The state "at i, coming from h" is what a solver that remembers one level needs.
    """
    count = len(errors)
    table = np.full((count, count, UNITS + 1), np.inf)
    origin = np.full((count, count, UNITS + 1), -1.0)
    table[0, 0] = 0.0
    for i in range(count - 1):
        for j in range(i + 1, count):
            price = prices[i, j]
            if price > UNITS:
                continue
            ways = table[: i + 1, i, : UNITS + 1 - price] + errors[: i + 1, i, j][:, None]
            table[i, j, price:] = ways.min(0)
            origin[i, j, price:] = ways.argmin(0)
    return table, origin


def _trace(table: Array, origin: Array, prices: IntArray) -> tuple[list[int], float] | None:
    """Indices of the levels of the best way to the last one, and its error."""
    end = len(table) - 1
    last = table[:, end, UNITS]
    h = int(last.argmin())
    if not np.isfinite(last[h]):
        return None
    error, i, units, chosen = float(last[h]), end, UNITS, [end]
    while i:
        chosen.append(h)
        before = int(origin[h, i, units])
        units -= int(prices[h, i])
        i, h = h, before
    return chosen[::-1], error
