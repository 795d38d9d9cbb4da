"""The cost at which a curve reaches a score."""

from collections.abc import Sequence

import numpy as np
import pytest

from multistage_diffusion.study.curve import Point
from multistage_diffusion.study.reach import cost_to_reach, final_score, monotone


def curve(values: Sequence[float], macs: Sequence[float] | None = None) -> list[Point]:
    spent = macs or [2.0**k for k in range(len(values))]
    return [Point(k, m, m, m, v) for k, (m, v) in enumerate(zip(spent, values, strict=True), 1)]


def test_a_falling_curve_is_its_own_fit() -> None:
    assert monotone(curve([5, 3, 2])) == [5, 3, 2]
    assert final_score(curve([5, 3, 2])) == 2


def test_a_lucky_point_does_not_count() -> None:
    """The mean of it and what follows does, as isotonic regression has it."""
    assert monotone(curve([5, 1, 3])) == [5, 2, 2]
    assert cost_to_reach(curve([5, 1, 3]), 1.5, "macs") is None


def test_between_points_the_score_is_linear_in_the_logarithm_of_the_cost() -> None:
    assert cost_to_reach(curve([4, 2]), 3, "macs") == pytest.approx(2**0.5)
    assert cost_to_reach(curve([4, 2]), 2, "macs") == 2
    assert cost_to_reach(curve([4, 2]), 5, "macs") == 1
    assert cost_to_reach(curve([4, 2]), 1, "macs") is None


def test_a_power_law_with_a_third_of_the_cost_needs_a_third() -> None:
    cost = np.geomspace(1, 100, 30)
    whole = curve(list(10 - np.log(cost)), list(cost))
    cheaper = curve(list(10 - np.log(3 * cost)), list(cost))
    needed = cost_to_reach(cheaper, final_score(whole), "macs")
    assert needed == pytest.approx(100 / 3)
    assert cost_to_reach(whole, final_score(whole), "macs") == pytest.approx(100)
