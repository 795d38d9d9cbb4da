"""The best partition of noise levels into consecutive stages, found exactly.

The value of a partition is a sum over its stages, so the best one follows by dynamic programming in
O(stages * levels^2), whatever the value of a single stage is. Values are given as a matrix:
``value[i, j]`` is that of a stage which holds the levels ``i .. j-1``.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_partition", "middle_values", "similarity_values"]

Floats = NDArray[np.float64]


def best_partition(
    value: Floats, stages: int, shortest: int = 1, longest: int | None = None
) -> tuple[list[int], float]:
    """Where to cut, and the value of the whole.

    Args:
        value: ``[L + 1, L + 1]``, used where ``i < j``.
        stages: number of stages.
        shortest, longest: limits on the number of levels in a stage.

    Returns:
        The first level of each stage but the first, and the largest sum of values.

    Raises:
        ValueError: if no partition keeps the limits.
    """
    levels = len(value) - 1
    longest = levels if longest is None else longest
    best = np.full((stages + 1, levels + 1), -np.inf)
    start = np.zeros((stages + 1, levels + 1), dtype=int)
    best[0, 0] = 0
    for stage in range(1, stages + 1):
        for end in range(shortest, levels + 1):
            first = max(0, end - longest)
            sums = (
                best[stage - 1, first : end - shortest + 1] + value[first : end - shortest + 1, end]
            )
            start[stage, end] = first + int(sums.argmax())
            best[stage, end] = sums.max()
    if best[stages, levels] == -np.inf:
        raise ValueError(
            f"{levels} levels cannot be cut into {stages} stages of {shortest} to {longest} levels."
        )
    return _cuts(start), float(best[stages, levels])


def _cuts(start: NDArray[np.int_]) -> list[int]:
    """Follows the table of best beginnings back from the last level."""
    cuts, end = [], start.shape[1] - 1
    for stage in range(start.shape[0] - 1, 0, -1):
        end = int(start[stage, end])
        cuts.append(end)
    return cuts[-2::-1]


def similarity_values(similarity: Floats) -> Floats:
    """Value of a stage: the mean similarity of its pairs of levels, times the number of its levels.

    Divided by the number of all levels, the value of a partition is the similarity of a random
    level to a random one of its own stage.
    """
    levels = len(similarity)
    sums = np.zeros((levels + 1, levels + 1))
    sums[1:, 1:] = similarity.cumsum(0).cumsum(1)
    diagonal = np.diag(sums)
    # sums over the blocks i..j-1 of a symmetric matrix
    squares = diagonal[None, :] - sums - sums.T + diagonal[:, None]
    lengths = np.arange(levels + 1)[None, :] - np.arange(levels + 1)[:, None]
    return np.where(lengths > 0, squares / np.where(lengths > 0, lengths, 1), -np.inf)


def middle_values(distance: Floats) -> Floats:
    """Value of a stage: minus the sum of the distances of its levels to its middle one (Go et al.
    2023, section 4.2).
    """
    levels = len(distance)
    value = np.full((levels + 1, levels + 1), -np.inf)
    for first in range(levels):
        for end in range(first + 1, levels + 1):
            value[first, end] = -distance[first:end, (first + end) // 2].sum()
    return value
