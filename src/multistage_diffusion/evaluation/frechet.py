"""Frechet distance between two sets of features.

Each is summarised by its mean and covariance (Heusel et al. 2017, eq. 6).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import (
    Estimate,
    bootstrap_deviation,
    with_deviation,
)

__all__ = ["Moments", "extrapolated_distance", "frechet", "frechet_distance"]

Floats = NDArray[np.float64]
BLOCK = 4096
SIZES = 15


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

    @staticmethod
    def of(features: Tensor) -> "Moments":
        """Moments of features ``[N, dimensions]``."""
        moments = Moments.empty(features.shape[1])
        for block in features.split(BLOCK):
            moments.add(block.numpy())
        return moments

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


def frechet(generated: Tensor, real: Tensor, replicates: int) -> Estimate:
    """Frechet distance of generated from real features, ``[N, F]`` and ``[M, F]``.

    The interval comes from the bootstrap over generated images. Its replicates are centred on the
    value, since a set with repetitions is further away than one without.

    Args:
        generated, real: features.
        replicates: of the bootstrap; fewer than two give no interval.

    Raises:
        BadInput: if there are fewer than two images of either kind.
    """
    target = Moments.of(real)
    value = frechet_distance(Moments.of(generated), target)
    if replicates < 2:
        return Estimate(value)
    distance = _DistanceOfRows(generated, target)
    return with_deviation(value, bootstrap_deviation(distance, len(generated), replicates))


def extrapolated_distance(generated: Tensor, real: Tensor, seed: int = 0) -> Estimate:
    """Frechet distance for infinitely many generated images (Chong and Forsyth 2020).

    The distance of ``N`` images is larger by about ``c / N``: a line through the distances of
    subsets of half to all of the images meets ``1/N = 0`` at the value. The interval is that of the
    fitted intercept; it does not hold the bias of the real images, of which there are finitely
    many too.

    Args:
        generated, real: features ``[N, F]`` and ``[M, F]``.
        seed: of the subsets.

    Raises:
        BadInput: if there are fewer than 32 generated images.
    """
    count = len(generated)
    if count < 2 * SIZES + 2:
        raise BadInput(f"--extrapolate needs at least {2 * SIZES + 2} images, not {count}.")
    distance = _DistanceOfRows(generated, Moments.of(real))
    source = torch.Generator().manual_seed(seed)
    sizes = (1 / np.linspace(2 / count, 1 / count, SIZES)).round().astype(int)
    values = [distance(torch.randperm(count, generator=source)[:size]) for size in sizes]
    (_, intercept), covariance = np.polyfit(1 / sizes, values, 1, cov=True)
    return with_deviation(float(intercept), float(covariance[1, 1] ** 0.5))


class _DistanceOfRows:
    """Frechet distance of a selection of features from fixed moments.

    With ``R`` the root of the real covariance and ``Z`` the centred features over
    ``sqrt(n - 1)``, ``tr (C1 C2)^(1/2)`` is the sum of the singular values of ``Z R``. ``X R`` is
    computed once, and the singular values from the smaller of the two Gram matrices.
    """

    def __init__(self, features: Tensor, target: Moments) -> None:
        self.features = features.double()
        self.target = target
        self.rotated = self.features @ torch.from_numpy(_root(target.covariance))

    def __call__(self, rows: Tensor) -> float:
        chosen, rotated = self.features[rows], self.rotated[rows]
        shift = chosen.mean(0) - torch.from_numpy(self.target.mean)
        centred = rotated - rotated.mean(0)
        tall = len(rows) > centred.shape[1]
        gram = centred.mT @ centred if tall else centred @ centred.mT
        cross = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum() / (len(rows) - 1) ** 0.5
        traces = chosen.var(0).sum() + float(np.trace(self.target.covariance))
        return float(shift.square().sum() + traces - 2 * cross)
