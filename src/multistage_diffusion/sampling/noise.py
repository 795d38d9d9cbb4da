"""Starting points of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["noise"]


def noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Unit Gaussian noise for the images with these indices, on the CPU.

    The noise of an image is a function of the seed and its own index only, not of the batch or the
    device.

    Returns:
        float32 ``[len(indices), *shape]``.
    """
    rows = [_noise(seed, index, shape) for index in indices]
    return torch.from_numpy(np.stack(rows))


def _noise(
    seed: int, index: int, shape: Sequence[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    source = np.random.default_rng((seed, index))
    return source.standard_normal(tuple(shape), dtype=np.float32)
