"""MIND: sliced Wasserstein distance between two sets of features (Berthet et al. 2026)."""

import torch
from torch import Tensor

from multistage_diffusion.data.images import evenly_spaced
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import (
    Estimate,
    bootstrap_deviation,
    with_deviation,
)

__all__ = ["mind"]

DIRECTIONS = 1000
SCALE = 3.0


def mind(generated: Tensor, real: Tensor, replicates: int, seed: int = 0) -> Estimate:
    """``3 F`` times the mean squared distance of sorted projections on random directions.

    It is meant for 2,000 to 5,000 images, where the Frechet distance is dominated by its bias.
    The larger set is cut to the size of the smaller one, evenly spaced.

    Args:
        generated, real: features ``[N, F]`` and ``[M, F]``.
        replicates: of the bootstrap over generated images; fewer than two give no interval.
        seed: of the directions.

    Raises:
        BadInput: if there are no images.
    """
    count = min(len(generated), len(real))
    if count == 0:
        raise BadInput("MIND needs at least 1 image of each kind.")
    directions = _directions(generated.shape[1], seed)
    first, second = (
        x[evenly_spaced(len(x), count)].float() @ directions for x in (generated, real)
    )
    sorted_real = second.sort(0).values
    scale = SCALE * generated.shape[1]

    def distance(rows: Tensor) -> float:
        return scale * float((first[rows].sort(0).values - sorted_real).square().mean())

    value = distance(torch.arange(count))
    if replicates < 2:
        return Estimate(value)
    return with_deviation(value, bootstrap_deviation(distance, count, replicates))


def _directions(dimensions: int, seed: int) -> Tensor:
    """Unit vectors as columns, ``[F, DIRECTIONS]``."""
    source = torch.Generator().manual_seed(seed)
    directions = torch.randn(DIRECTIONS, dimensions, generator=source)
    return (directions / directions.norm(dim=1, keepdim=True)).T
