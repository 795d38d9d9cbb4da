"""How much of a machine's arithmetic training uses."""

import statistics
import time
from functools import lru_cache

import torch

__all__ = ["product_rate"]

SIZES = {"cuda": 8192}  # of the matrices, where a small product does not fill the device
USUAL_SIZE = 512
REPEATS = 5


@lru_cache
def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of products of square matrices, measured once a process.

    Args:
        device: where; with as many threads as torch uses.
        dtype: of the matrices. float32 is rounded as torch is set to.
    """
    size = SIZES.get(device.type, USUAL_SIZE)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    times = [_seconds(matrix) for _ in range(REPEATS + 1)]
    return float(size**3 / statistics.median(times[1:]))


def _seconds(matrix: torch.Tensor) -> float:
    begun = time.perf_counter()
    (matrix @ matrix)[0, 0].item()  # waits for the device
    return time.perf_counter() - begun
