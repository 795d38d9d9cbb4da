"""Inception Score (Salimans et al. 2016)."""

import torch
from torch import Tensor

from multistage_diffusion.evaluation.estimate import Estimate

__all__ = ["inception_score"]

SPLITS = 10


def inception_score(probabilities: Tensor, splits: int = SPLITS, seed: int = 0) -> Estimate:
    """``exp E KL(p(class | image) || p(class))``, the mean over parts of the images.

    The interval is the customary one: twice the standard deviation over the parts.

    Args:
        probabilities: of the classes, ``[N, classes]``.
        splits: number of parts, at most the number of images.
        seed: of the random partition of the images.
    """
    source = torch.Generator().manual_seed(seed)
    shuffled = probabilities.double()[torch.randperm(len(probabilities), generator=source)]
    parts = shuffled.tensor_split(min(splits, len(shuffled)))
    scores = torch.stack([_score(part) for part in parts])
    value, margin = float(scores.mean()), 2 * float(scores.std(correction=0))
    return Estimate(value, (value - margin, value + margin))


def _score(probabilities: Tensor) -> Tensor:
    logarithms = probabilities.clamp(min=1e-300).log()
    marginal = probabilities.mean(0).clamp(min=1e-300).log()
    return (probabilities * (logarithms - marginal)).sum(1).mean().exp()
