"""Power-function profiles: against numerical integrals, and the recursion that training uses."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad

from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.ema.profiles import (
    WIDEST_AVERAGE,
    Profiles,
    combine,
    exponent,
    half_life_exponent,
    half_life_fraction,
    power_decay,
    relative_width,
)

STORED = (exponent(0.05), exponent(0.1))


def density(gamma: float, end: float, t: float) -> float:
    return (gamma + 1) * t**gamma / end ** (gamma + 1) if t <= end else 0.0


def equally_spaced(count: int, end: float = 1e6) -> Profiles:
    """Both stored averages at ``count`` times."""
    ends = np.arange(1, count + 1) / count * end
    return Profiles(np.tile(STORED, count), np.repeat(ends, 2))


def one(gamma: float, end: float = 1e6) -> Profiles:
    return Profiles(np.array([gamma]), np.array([end]))


def test_the_widths_of_the_paper_have_its_exponents() -> None:
    assert pytest.approx((16.97, 6.94), abs=0.005) == STORED


@pytest.mark.parametrize("width", [0.002, 0.01, 0.05, 0.1, 0.2, 0.28, WIDEST_AVERAGE])
def test_width_and_exponent_are_inverse(width: float) -> None:
    assert relative_width(exponent(width)) == pytest.approx(width, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 6.94, 40.0])
def test_the_width_is_the_standard_deviation_of_the_profile(gamma: float) -> None:
    mean, square = (quad(lambda t, k=k: t**k * density(gamma, 1, t), 0, 1)[0] for k in (1, 2))
    assert relative_width(gamma) == pytest.approx((square - mean**2) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_widths_that_no_average_has_are_refused(width: float) -> None:
    with pytest.raises(BadInput, match="lies between"):
        exponent(width)


def test_the_half_life_is_that_of_weights_at_the_end() -> None:
    """What stands for the last part of the time loses half of its place when the time grows by
    little, again and again."""
    gamma, steps = half_life_exponent(0.05), 10_000
    assert half_life_fraction(gamma) == pytest.approx(0.05)
    decay = power_decay(gamma, 1_000_000, 50_000 // steps) ** steps
    assert decay == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(BadInput, match="half-life"):
        half_life_exponent(0.7)


@pytest.mark.parametrize(
    ("g", "s", "h", "t"), [(6.9, 1.0, 16.97, 1.0), (0.0, 0.5, 3.0, 2.0), (3.0, 2.0, 0.5, 0.7)]
)
def test_inner_products_are_integrals(g: float, s: float, h: float, t: float) -> None:
    integral = quad(lambda x: density(g, s, x) * density(h, t, x), 0, min(s, t), epsabs=0)[0]
    assert one(g, s).inner(one(h, t)) == pytest.approx(integral, rel=1e-9)
    assert one(g, s).norms() ** 2 == pytest.approx(one(g, s).inner(one(g, s))[0], rel=1e-12)


def test_the_recursion_is_the_integral_over_weights_that_are_constant_in_steps_of_any_size() -> (
    None
):
    rng, gamma = np.random.default_rng(0), exponent(0.1)
    steps, weights = rng.integers(0, 30, 50), rng.normal(size=50)
    times, average = np.cumsum(steps), 5.0
    for time, step, weight in zip(times.tolist(), steps.tolist(), weights, strict=True):
        beta = power_decay(gamma, time, step)
        average = beta * average + (1 - beta) * weight
    masses = np.diff((times / times[-1]) ** (gamma + 1), prepend=0)
    assert average == pytest.approx((masses * weights).sum(), rel=1e-12)


def test_factors_add_up_to_one_and_a_stored_profile_is_itself() -> None:
    stored = equally_spaced(7)
    factors, errors = combine(
        stored, Profiles(np.array([exponent(0.07), STORED[1]]), np.full(2, 1e6))
    )
    assert factors.sum(0) == pytest.approx(1, abs=1e-9)
    assert factors[:, 1] == pytest.approx(np.eye(14)[13], abs=1e-6)
    assert errors[1] < 1e-6


def test_the_error_is_that_of_the_profile_and_no_other_sum_is_nearer() -> None:
    stored, wanted = equally_spaced(4, 1.0), exponent(0.15)
    factors, (error,) = combine(stored, one(wanted, 1.0))

    def distance(some: np.ndarray) -> float:
        t = (np.arange(200_000) + 0.5) / 200_000
        pairs = zip(some, stored.gamma, stored.end, strict=True)
        mixed = sum(x * (g + 1) * (t / s) ** g / s * (t <= s) for x, g, s in pairs)
        target = (wanted + 1) * t**wanted
        return float(np.linalg.norm(mixed - target) / np.linalg.norm(target))

    assert distance(factors[:, 0]) == pytest.approx(error, rel=1e-3)
    for other in np.random.default_rng(0).normal(size=(10, 8)):
        assert distance(factors[:, 0] + 1e-2 * (other - other.mean())) > error


@pytest.mark.parametrize("width", [0.03, 0.07, 0.2])
def test_the_error_falls_fast_with_the_number_of_snapshots(width: float) -> None:
    errors = [
        float(combine(equally_spaced(n), one(exponent(width)))[1][0]) for n in (8, 16, 32, 64)
    ]
    assert all(later < earlier / 2.5 for earlier, later in pairwise(errors))
    assert errors[-1] < 3e-3


def test_averages_that_ended_together_do_no_harm() -> None:
    """A decoder without samples between two snapshots has the same average in both."""
    once, wanted = equally_spaced(12), one(exponent(0.07))
    twice = Profiles(
        np.concatenate([once.gamma, once.gamma[4:8]]), np.concatenate([once.end, once.end[4:8]])
    )
    (factors, errors), (_, expected) = combine(twice, wanted), combine(once, wanted)
    assert errors == pytest.approx(expected, rel=1e-6)
    assert abs(factors).max() < 2
