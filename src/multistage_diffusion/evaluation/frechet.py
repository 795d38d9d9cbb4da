"""Frechet distance between two sets of features.

Each is summarised by its mean and covariance (Heusel et al. 2017, eq. 6).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from multistage_diffusion.errors import BadInput

__all__ = ["Moments", "frechet_distance"]

Floats = NDArray[np.float64]


@dataclass
class Moments:
    """Mean and scatter of a stream of features, in float64, one batch at a time (Chan et al. 1979).

    The mean is updated by the difference to the batch's own, which does not cancel as sums of
    squares would.
    """

    count: int
    mean: Floats
    scatter: Floats
    """Sum of the outer products of the deviations from the mean."""

    @staticmethod
    def empty(dimensions: int) -> "Moments":
        return Moments(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def add(self, features: NDArray[np.floating]) -> None:
        """Adds a batch of features, ``[B, dimensions]``."""
        batch = features.astype(np.float64)
        mean = batch.mean(0)
        deviation, shift = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self.scatter += deviation.T @ deviation + np.outer(shift, shift) * (
            self.count * len(batch) / total
        )
        self.mean = self.mean + shift * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance.

        Raises:
            BadInput: if fewer than two features were added.
        """
        if self.count < 2:
            raise BadInput(f"A covariance needs at least 2 images, not {self.count}.")
        return self.scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``.

    The trace of the root is the sum of the singular values of ``C1^(1/2) C2^(1/2)``, which stays
    accurate where the covariances are singular, as they are with fewer images than features.
    """
    one, two = first.covariance, second.covariance
    cross = scipy.linalg.svdvals(_root(one) @ _root(two)).sum()
    distance = np.square(first.mean - second.mean).sum() + np.trace(one) + np.trace(two) - 2 * cross
    return max(0.0, float(distance))


def _root(covariance: Floats) -> Floats:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = scipy.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
