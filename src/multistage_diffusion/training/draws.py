"""Everything random in training, as functions of (seed, images seen): resuming needs no generator state.

Each purpose has a stream of its own, so that adding one leaves the others as they are.
"""

from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Stream", "generator", "image_indices", "stage_levels", "stratified_levels"]


class Stream(IntEnum):
    """What randomness is used for."""

    WEIGHTS = 0
    ORDER = 1
    STEP = 2
    DROPOUT = 3
    PROBE = 4


def _key(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(seed: int, stream: Stream, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose at one position, for example the number of images seen."""
    return torch.Generator(device).manual_seed(_key(seed, stream, *position))


def seed_globally(seed: int, stream: Stream, *position: int) -> None:
    """Seeds torch's global generators, which initialisation and dropout draw from."""
    torch.manual_seed(_key(seed, stream, *position))


def image_indices(seed: int, total: int, start: int, count: int) -> Tensor:
    """The images at positions ``start .. start + count - 1`` of an endless sequence of shuffled passes over ``total``."""
    positions = np.arange(start, start + count)
    epochs = positions // total
    chosen = [_shuffled(seed, total, int(epoch))[positions[epochs == epoch] % total] for epoch in np.unique(epochs)]
    return torch.from_numpy(np.concatenate(chosen))


@lru_cache(maxsize=2)
def _shuffled(seed: int, total: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng((seed, Stream.ORDER, epoch)).permutation(total)


def stratified_levels(schedule: Schedule, count: int, draw: torch.Generator) -> Tensor:
    """``count`` noise levels of the schedule, one from each of ``count`` equal cells of u: float64 ``[count]``.

    Any mean over them has the same expectation as over independent levels and less variance.
    """
    return schedule.sigma(_stratified(count, draw))


def stage_levels(schedule: Schedule, stages: Stages, stage: int, count: int, draw: torch.Generator) -> Tensor:
    """``count`` stratified levels of the schedule restricted to one stage: float64 ``[count]``."""
    low, high = stages.bounds(stage)
    start = float(schedule.u(low)) if low > 0 else 0.0
    return schedule.sigma(start + stages.share(schedule, stage) * _stratified(count, draw)).clamp(low, high)


def _stratified(count: int, draw: torch.Generator) -> Tensor:
    return (torch.arange(count) + torch.rand(count, dtype=torch.float64, generator=draw)) / count
