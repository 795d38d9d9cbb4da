"""Precision and recall, density and coverage of two sets, from nearest neighbours.

Precision and recall are those of Kynkaanniemi et al. (2019), density and coverage those of Naeem et
al. (2020), with the five nearest neighbours of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import Estimate, mean_of_values

__all__ = ["NEAREST", "Manifolds", "compare_manifolds", "distances", "nearest_distances"]

NEAREST = 5
BLOCK = 1024


@dataclass(frozen=True)
class Manifolds:
    """Four numbers. A perfect model has precision, recall and coverage near 1, density 1."""

    precision: Estimate
    """Share of generated images that lie in the ball of a real one."""
    recall: Estimate
    """Share of real images that lie in the ball of a generated one."""
    density: Estimate
    """Number of balls of real images in which a generated one lies, over the expected number."""
    coverage: Estimate
    """Share of real images with a generated one in their ball."""


def compare_manifolds(generated: Tensor, real: Tensor, nearest: int = NEAREST) -> Manifolds:
    """Compares two sets of features, ``[N, F]`` and ``[M, F]``.

    The ball of an image reaches to its ``nearest``-th neighbour in its own set.

    Raises:
        BadInput: if a set has no more images than ``nearest``.
    """
    if min(len(generated), len(real)) <= nearest:
        raise BadInput(
            f"Precision, recall, density and coverage need more than {nearest} images of each "
            f"kind, not {len(generated)} and {len(real)}."
        )
    real_radius = nearest_distances(real, real, nearest + 1)[:, -1]
    generated_radius = nearest_distances(generated, generated, nearest + 1)[:, -1]
    real_balls = _balls(generated, real, real_radius)
    generated_balls = _balls(real, generated, generated_radius)
    covered = nearest_distances(real, generated, 1)[:, 0] < real_radius
    return Manifolds(
        precision=mean_of_values(real_balls > 0),
        recall=mean_of_values(generated_balls > 0),
        density=mean_of_values(real_balls / nearest),
        coverage=mean_of_values(covered),
    )


def _balls(rows: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """Number of balls in which each row lies: int64 ``[len(rows)]``."""
    return torch.cat([(block < radius).sum(1) for block in distances(rows, centres)])


def nearest_distances(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Distances of each row to its nearest others, increasing: ``[len(rows), count]``."""
    blocks = distances(rows, others)
    return torch.cat([block.topk(count, largest=False).values for block in blocks])


def distances(rows: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Distances of rows to all others, a block of rows at a time."""
    columns = others.double()
    for block in rows.split(BLOCK):
        yield torch.cdist(block.double(), columns)
