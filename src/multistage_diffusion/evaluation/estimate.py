"""A measured number with its uncertainty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

__all__ = ["Estimate", "bootstrap_deviation", "mean_of_values", "over_seeds", "with_deviation"]

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, which is None if it cannot be estimated."""

    value: float
    interval: tuple[float, float] | None = None


def with_deviation(value: float, deviation: float) -> Estimate:
    """A value with the interval of a normal distribution of this standard deviation."""
    margin = NORMAL_95 * deviation
    return Estimate(value, (value - margin, value + margin))


def mean_of_values(values: Tensor) -> Estimate:
    """The mean of independent values ``[N]``; no interval for fewer than two."""
    value = float(values.double().mean())
    if len(values) < 2:
        return Estimate(value)
    return with_deviation(value, float(values.double().std() / len(values) ** 0.5))


def bootstrap_deviation(
    statistic: Callable[[Tensor], float], count: int, replicates: int, seed: int = 0
) -> float:
    """Standard deviation of a statistic over sets drawn with replacement (Efron 1979).

    Args:
        statistic: of the images with these indices, int64 ``[count]``.
        count: images in the set.
        replicates: sets drawn, at least 2.
        seed: of the draws.
    """
    source = torch.Generator().manual_seed(seed)
    draws = (torch.randint(count, (count,), generator=source) for _ in range(replicates))
    return float(np.std([statistic(draw) for draw in draws], ddof=1))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over seeds with the interval of Student's t; no interval for a single seed."""
    value = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    margin = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(value, (value - margin, value + margin))
