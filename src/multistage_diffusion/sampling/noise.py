"""Starting points of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["noise"]


def noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Unit Gaussian noise for the images with these indices: float32 ``[len(indices), *shape]``, on
    the CPU.

    Each image's noise is a function of ``seed`` and its own index only, not of the batch or the
    device.
    """
    rows = [
        np.random.default_rng((seed, index)).standard_normal(tuple(shape), dtype=np.float32)
        for index in indices
    ]
    return torch.from_numpy(np.stack(rows))
