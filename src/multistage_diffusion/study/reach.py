"""How much training a run needs to reach a score."""

from collections.abc import Sequence

import numpy as np
from sklearn.isotonic import IsotonicRegression

from multistage_diffusion.study.curve import Cost, Point

__all__ = ["cost_to_reach", "final_score", "monotone"]


def monotone(points: Sequence[Point]) -> list[float]:
    """The falling sequence nearest to the values of a curve (isotonic regression).

    A score is measured with noise: of many points the best one is lucky. The fit uses neighbours
    to take the luck out, in the same way for all curves.
    """
    order = np.arange(len(points))
    values = [point.value for point in points]
    return list(map(float, IsotonicRegression(increasing=False).fit_transform(order, values)))


def final_score(points: Sequence[Point]) -> float:
    """The score at the end of a curve, by the monotone fit."""
    return monotone(points)[-1]


def cost_to_reach(points: Sequence[Point], score: float, cost: Cost) -> float | None:
    """The cost at which the monotone fit of a curve first is as low as a score.

    Between points the score is linear in the logarithm of the cost. None if the curve does not
    reach it; the first point's cost if it begins below.
    """
    fit = monotone(points)
    spent = [float(getattr(point, cost)) for point in points]
    for k, value in enumerate(fit):
        if value <= score:
            if k == 0 or spent[k - 1] <= 0:
                return spent[k]
            share = (fit[k - 1] - score) / (fit[k - 1] - value)
            return float(spent[k - 1] * (spent[k] / spent[k - 1]) ** share)
    return None
