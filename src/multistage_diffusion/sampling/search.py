"""The best noise levels for a budget: dynamic programming over the steps of a recorded path."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.sampling.path import Array, Path, StepRule, step_errors

__all__ = ["Levels", "Reuse", "best_levels"]

IntArray = NDArray[np.int64]
UNITS = 240
"""Parts that a budget is divided into; costs are rounded up to them."""


@dataclass(frozen=True)
class Reuse:
    """The errors and costs of reusing the encoder's features of an earlier level."""

    errors: Array
    """Of the denoised image at level i with the features of level k: ``[k, i]``, RMS, see
    ``path.stale_errors``."""
    costs: Sequence[float]
    """Of an evaluation at each level with reused features."""


@dataclass(frozen=True)
class Levels:
    """Noise levels for a solver."""

    levels: tuple[float, ...]
    """Decreasing and positive; the last step goes to 0."""
    error: float
    """The sum of the squares of all steps' errors at the end, which is minimised."""
    cost: float
    """Of a sample."""
    reused: tuple[float, ...] = ()
    """The levels at which the encoder is not evaluated."""


@dataclass(frozen=True)
class _Steps:
    """Squares of errors, and costs, of a step from level i to level j."""

    errors: Array
    """``[h, i, j]`` after a step from level h."""
    costs: Array
    """``[i, j]``"""
    stale_errors: Array
    """``[k, i, j]``: what is added if the encoder was last evaluated at level k < i."""
    stale_costs: Array
    """``[i, j]``: the costs of such a step."""


@dataclass(frozen=True)
class _Table:
    """The best ways to level i from level h, if the encoder was last evaluated at level k."""

    errors: Array
    """Sums of squared errors, ``[h, i, k, c]``, with c units of the budget spent."""
    origin: IntArray
    """h and k of the state before, as one number."""


def best_levels(
    path: Path, rule: StepRule, costs: Sequence[float], budget: float, reuse: Reuse | None = None
) -> Levels | None:
    """The levels with the least squares of errors within a budget; None if it pays for no step.

    Errors count as they are at the end of the path, and as if they were independent.

    Args:
        path: recorded states at all levels that may be chosen.
        rule: the solver.
        costs: of an evaluation at each level but the last.
        budget: for all evaluations, in the same unit.
        reuse: errors and costs of reuse, to choose also where features are reused.
    """
    steps = _steps(path, rule, costs, reuse)
    unit = budget / UNITS
    prices, stale_prices = (_units(costs, unit) for costs in (steps.costs, steps.stale_costs))
    table = _fill(steps, prices, stale_prices)
    found = _trace(table, prices, stale_prices)
    if found is None:
        return None
    chosen, reused, error = found
    spent = [(steps.stale_costs if i in reused else steps.costs)[i, j] for i, j in pairwise(chosen)]
    levels = tuple(path.levels[i] for i in chosen[:-1])
    return Levels(levels, error, float(sum(spent)), tuple(path.levels[i] for i in reused))


def _units(costs: Array, unit: float) -> IntArray:
    return np.ceil(costs / unit - 1e-9).astype(np.int64)


def _steps(path: Path, rule: StepRule, costs: Sequence[float], reuse: Reuse | None) -> _Steps:
    errors = (step_errors(path, rule) * path.gains) ** 2
    spending = _step_costs(rule, costs)
    if reuse is None:
        return _Steps(errors, spending, np.zeros((1, *spending.shape)), spending)
    levels, known = np.array(path.levels), np.isfinite(reuse.errors)
    taken = 1 - levels / levels[:-1, None]  # of a denoised image by a step [i, j] of first order
    lost = np.where(known, reuse.errors, 0)[:, :, None] * taken * path.gains
    stale = np.where(known[:, :, None], lost**2, np.inf)
    return _Steps(errors, spending, stale, _step_costs(rule, reuse.costs))


def _step_costs(rule: StepRule, costs: Sequence[float]) -> Array:
    """What a step from i to j costs: ``[N + 1, N + 1]``."""
    each = np.append(costs, 0.0)
    following = each if rule.evaluates_next else np.zeros_like(each)
    return each[:, None] + following[None, :]


def _fill(steps: _Steps, prices: IntArray, stale_prices: IntArray) -> _Table:
    """The state "at i, coming from h" is what a solver that remembers one level needs."""
    count, keys = len(steps.errors), len(steps.stale_errors)
    shape = (count, count, keys, UNITS + 1)
    table = _Table(np.full(shape, np.inf), np.zeros(shape, np.int64))
    table.errors[0, 0, 0] = 0.0
    for i in range(count - 1):
        for j in range(i + 1, count):
            ways = table.errors[: i + 1, i] + steps.errors[: i + 1, i, j][:, None, None]
            _evaluate(table, ways, i, j, int(prices[i, j]))
            if keys > 1:
                stale = steps.stale_errors[:i, i, j]
                _take_over(table, ways[:, :i], stale, i, j, int(stale_prices[i, j]))
    return table


def _evaluate(table: _Table, ways: Array, i: int, j: int, price: int) -> None:
    """Adds the step from i to j with the encoder, after the best of the ways ``[h, k, c]``."""
    if price > UNITS:
        return
    keys = ways.shape[1]
    flat = ways.reshape(-1, UNITS + 1)[:, : UNITS + 1 - price]
    key = i if keys > 1 else 0
    table.errors[i, j, key, price:] = flat.min(0)
    table.origin[i, j, key, price:] = flat.argmin(0)


def _take_over(table: _Table, ways: Array, stale: Array, i: int, j: int, price: int) -> None:
    """Adds the same step with the features of each k < i, after the best of ``[h, k, c]``."""
    if price > UNITS or not i:
        return
    affordable = ways[:, :, : UNITS + 1 - price]
    before = affordable.argmin(0) * table.errors.shape[2] + np.arange(i)[:, None]
    table.errors[i, j, :i, price:] = affordable.min(0) + stale[:, None]
    table.origin[i, j, :i, price:] = before


def _trace(
    table: _Table, prices: IntArray, stale_prices: IntArray
) -> tuple[list[int], list[int], float] | None:
    """Indices of the levels of the best way to the last one and those reused, and its error."""
    count, _, keys, _ = table.errors.shape
    last = table.errors[:, -1, :, UNITS]
    h, k = (int(index) for index in np.unravel_index(last.argmin(), last.shape))
    if not np.isfinite(last[h, k]):
        return None
    error, i, units, chosen, reused = float(last[h, k]), count - 1, UNITS, [count - 1], []
    while i:
        chosen.append(h)
        is_stale = keys > 1 and k < h
        if is_stale:
            reused.append(h)
        before = divmod(int(table.origin[h, i, k, units]), keys)
        units -= int((stale_prices if is_stale else prices)[h, i])
        i, (h, k) = h, before
    return chosen[::-1], reused[::-1], error
