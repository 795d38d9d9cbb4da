"""Power-function averages, and how some of them are combined into another.

Karras et al. 2024, EDM2, section 3 and appendix C.

An average of the weights theta over the time t, here counted in images, has the profile

    p(t) = (gamma + 1) t^gamma / T^(gamma + 1),    0 < t <= T,

whose standard deviation is a fixed fraction sigma_rel of T. The step that makes t images of t - d
updates it by

    average <- beta average + (1 - beta) theta,    beta = (1 - d / t)^(gamma + 1).

The betas telescope: the average is the integral of p over weights that are constant during a step,
whatever the sizes of the steps. So these profiles have no error of discretisation.
Everything is in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from multistage_diffusion.errors import BadInput

__all__ = [
    "NARROWEST_AVERAGE",
    "WIDEST_AVERAGE",
    "Profiles",
    "combine",
    "exponent",
    "half_life_exponent",
    "half_life_fraction",
    "power_decay",
    "relative_width",
]

# Standard deviation of the uniform density on [0, 1]: the mean over all images.
WIDEST_AVERAGE = 12**-0.5
# Narrower ones are the weights of the last images, and have exponents that float64 cannot square.
NARROWEST_AVERAGE = 1e-4
Array = NDArray[np.float64]
# singular values that are rounding, as a part of the largest: averages that ended together are the
# same twice
SMALLEST = 1e-13


def relative_width(gamma: float) -> float:
    """``sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^(-1/2)`` (EDM2, eq. 123)."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def exponent(sigma_rel: float) -> float:
    """The exponent of a relative width (EDM2, eq. 126).

    It is the largest root of ``(g + 2)^2 (g + 3) - (g + 1) / sigma_rel^2``.

    Raises:
        BadInput: if the width is narrower than ``NARROWEST_AVERAGE``, or wider than that of the
            mean over all images.
    """
    if not NARROWEST_AVERAGE <= sigma_rel <= WIDEST_AVERAGE:
        raise BadInput(
            f"A relative width sigma_rel lies between {NARROWEST_AVERAGE:g} and "
            f"{WIDEST_AVERAGE:.4f}, the width of the mean of all weights; {sigma_rel} does not."
        )
    cubic = Polynomial.fromroots([-2, -2, -3]) - Polynomial([1, 1]) / sigma_rel**2
    return float(cubic.roots().real.max())


def half_life_fraction(gamma: float) -> float:
    """The half-life of an average as a fraction of the images seen: ``ln 2 / (gamma + 1)``."""
    return math.log(2) / (gamma + 1)


def half_life_exponent(fraction: float) -> float:
    """The exponent of which this is the ``half_life_fraction``.

    Raises:
        BadInput: if there is none: the mean of all images has a half-life of 69 % of them.
    """
    if not 0 < fraction <= math.log(2):
        raise BadInput(
            f"A half-life lies between 0 and {math.log(2):.0%} of the images seen, the mean of "
            f"all, not at {fraction:.0%}."
        )
    return math.log(2) / fraction - 1


def power_decay(gamma: float, seen: int, step: int) -> float:
    """``beta`` of a step of ``step`` images that ends at ``seen`` images (EDM2, eq. 127).

    A step without images changes nothing.
    """
    return (1 - step / seen) ** (gamma + 1) if step else 1.0


@dataclass(frozen=True)
class Profiles:
    """Some profiles."""

    gamma: Array
    """Exponents, at least 0: ``[n]``."""
    end: Array
    """T, the images until which each average goes, positive: ``[n]``."""

    def inner(self, other: "Profiles") -> Array:
        """Integrals of the products of these profiles and others:

        ``[n, m]``, per image (EDM2, eq. 151).
        """
        g, h, s, t = self.gamma[:, None], other.gamma, self.end[:, None], other.end
        low, high = np.minimum(s, t), np.maximum(s, t)
        return (g + 1) * (h + 1) / (g + h + 1) * (low / s) ** g * (low / t) ** h / high

    def norms(self) -> Array:
        """Roots of the integrals of the squares: ``[n]``."""
        return (self.gamma + 1) / np.sqrt((2 * self.gamma + 1) * self.end)


def combine(stored: Profiles, wanted: Profiles) -> tuple[Array, Array]:
    """The sums of stored profiles nearest to wanted ones in the mean square (EDM2, algorithm 3).

    Unlike EDM2's, the factors of a sum add up to one, so that weights that do not move come out as
    they are.

    Args:
        stored: ``n`` profiles.
        wanted: ``m`` profiles.

    Returns:
        The factors ``[n, m]``, and ``[m]`` how far each sum is from what is wanted, as a part of
        the norm of that.
    """
    norms, count = stored.norms(), len(stored.end)
    gram, products = stored.inner(stored), stored.inner(wanted)
    ones = (
        1 / norms
    )  # of unit profiles; the last equation and its multiplier say that factors add up to one
    size = np.linalg.norm(ones)
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = gram / np.outer(norms, norms)
    system[count, :count] = system[:count, count] = ones / size
    right = np.vstack([products / norms[:, None], np.full(len(wanted.end), 1 / size)])
    factors = np.linalg.lstsq(system, right, rcond=SMALLEST)[0][:count] / norms[:, None]
    square = (
        wanted.norms() ** 2 - 2 * (factors * products).sum(0) + (factors * (gram @ factors)).sum(0)
    )
    return factors, np.sqrt(square.clip(0)) / wanted.norms()
