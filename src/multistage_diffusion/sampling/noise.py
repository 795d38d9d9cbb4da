"""Noise: the starting points of samples, and the noise of stochastic solvers."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["noise"]


def noise(
    seed: int, indices: Sequence[int], shape: Sequence[int], draw: int | None = None
) -> Tensor:
    """Unit Gaussian noise for the images with these indices, on the CPU.

    The noise of an image is a function of the seed, its own index and the number of the draw, not
    of the batch or the device.

    Args:
        seed: of all noise.
        indices: of the images.
        shape: of an image.
        draw: for noise during sampling, its number; None for the noise that an image begins with.

    Returns:
        float32 ``[len(indices), *shape]``.
    """
    rows = [_noise(seed, index, shape, draw) for index in indices]
    return torch.from_numpy(np.stack(rows))


def _noise(
    seed: int, index: int, shape: Sequence[int], draw: int | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    key = (seed, index) if draw is None else (seed, index, draw + 1)  # 0 would add nothing
    source = np.random.default_rng(key)
    return source.standard_normal(tuple(shape), dtype=np.float32)
