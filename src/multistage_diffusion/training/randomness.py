"""Everything random in training, as functions of (seed, images seen).

Resuming therefore needs no generator state. Each purpose has its own stream, so that adding one
leaves the others as they are.
"""

from enum import IntEnum

import numpy as np
import torch

__all__ = ["Stream", "generator", "hashed", "seed_globally"]


class Stream(IntEnum):
    """A purpose of randomness."""

    WEIGHTS = 0
    ORDER = 1
    STEP = 2
    DROPOUT = 3
    PROBE = 4
    NOISE = 5
    SPLIT = 6


def _key(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(
    seed: int, stream: Stream, *position: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for a purpose and a position, for example the number of images seen."""
    return torch.Generator(device).manual_seed(_key(seed, stream, *position))


def hashed(
    seed: int, stream: Stream, positions: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A number for each of many positions: uint64 like them (Steele et al. 2014, SplitMix)."""
    mixed = np.uint64(_key(seed, stream)) + positions * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def seed_globally(seed: int, stream: Stream, *position: int) -> None:
    """Seeds torch's global generators, used by initialisation and dropout."""
    torch.manual_seed(_key(seed, stream, *position))
