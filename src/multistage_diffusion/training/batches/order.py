"""The order of the images, as a function of (seed, images seen)."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.training.randomness import Stream

__all__ = ["image_indices"]


def image_indices(seed: int, total: int, start: int, count: int) -> Tensor:
    """Indices of the images at some positions of an endless sequence of shuffled epochs.

    Args:
        seed: of the run.
        total: images in the data set.
        start: the first position, which is the number of images seen.
        count: how many.

    Returns:
        int64 ``[count]``.
    """
    positions = np.arange(start, start + count)
    epochs = positions // total
    chosen = [
        _shuffled(seed, total, int(epoch))[positions[epochs == epoch] % total]
        for epoch in np.unique(epochs)
    ]
    return torch.from_numpy(np.concatenate(chosen))


@lru_cache(maxsize=2)
def _shuffled(seed: int, total: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The order of the images in an epoch."""
    return np.random.default_rng((seed, Stream.ORDER, epoch)).permutation(total)
