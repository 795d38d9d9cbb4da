"""Everything random in training, as functions of (seed, images seen).

Resuming therefore needs no generator state. Each purpose has its own stream, so that adding one
leaves the others as they are.
"""

from enum import IntEnum

import numpy as np
import torch

__all__ = ["Stream", "generator", "seed_globally"]


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


def seed_globally(seed: int, stream: Stream, *position: int) -> None:
    """Seeds torch's global generators, used by initialisation and dropout."""
    torch.manual_seed(_key(seed, stream, *position))
