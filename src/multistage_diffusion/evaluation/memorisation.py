"""Memorisation: whether generated images are copies of training images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.evaluation.estimate import Estimate, mean_of_values
from multistage_diffusion.evaluation.neighbours import distances, nearest_distances

__all__ = ["Memorisation", "measure_memorisation"]

QUANTILE = 0.01


@dataclass(frozen=True)
class Memorisation:
    """How close generated images are to training images."""

    share: Estimate
    """Share of generated images that are closer to a training image than all but 1 % of held-out
    images are; 0.01 without memorisation."""
    suspects: Tensor
    """Indices of the generated images by their distance to training images, nearest first."""
    originals: Tensor
    """The nearest training image of each suspect."""


def measure_memorisation(
    generated: Tensor, training: Tensor, held_out: Tensor | None, shown: int = 16
) -> Memorisation:
    """Compares distances to the training images, in features.

    Args:
        generated, training: features ``[N, F]`` and ``[M, F]``.
        held_out: features of images that were not trained on, ``[H, F]``. Without them training
            images are compared with one another, each without itself.
        shown: how many suspects to name.
    """
    usual = (
        nearest_distances(training, training, 2)[:, 1]
        if held_out is None
        else nearest_distances(held_out, training, 1)[:, 0]
    )
    distance, nearest = _nearest(generated, training)
    order = distance.argsort()[:shown]
    copies = distance < usual.quantile(QUANTILE)
    return Memorisation(mean_of_values(copies), order, nearest[order])


def _nearest(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to and index of the nearest other of each row."""
    parts = [block.min(1) for block in distances(rows, others)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
