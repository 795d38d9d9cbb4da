"""Stages that depend on the schedule alone.

After Go et al. 2023, "Addressing Negative Transfer in Diffusion Models".

Consecutive stages minimise the sum of the distances of their levels to the middle one, in time or
in log SNR; each is between one half and one and a half times as long as the mean.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from multistage_diffusion.clustering.partition import best_partition, middle_values
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages

__all__ = ["distance_stages", "middle_cuts"]

Floats = NDArray[np.float64]

STEPS = 200


def distance_stages(schedule: Schedule, method: str, stages: int) -> Stages:
    """Stages on ``STEPS`` levels at equal quantiles of the schedule.

    Args:
        schedule: gives levels and their share. Time is the quantile, which for the VP and discrete
            schedules is their own clock.
        method: ``timestep`` or ``snr``.
        stages: number of stages.
    """
    u = np.arange(1, STEPS + 1) / STEPS
    inside = np.minimum(u, 1 - 0.5 / STEPS)  # the last level of a schedule without an end
    sigma = schedule.sigma(torch.from_numpy(inside if math.isinf(schedule.sigma(1.0)) else u))
    position = u if method == "timestep" else -2 * sigma.log().numpy()
    return Stages(
        tuple(sigma[middle_cuts(np.abs(position[:, None] - position[None, :]), stages)].tolist())
    )


def middle_cuts(distance: Floats, stages: int) -> list[int]:
    """The first level of each stage but the first.

    For distances between levels, ``[levels, levels]``.
    """
    levels = len(distance)
    return best_partition(
        middle_values(distance),
        stages,
        math.ceil(levels / (2 * stages)),
        math.ceil(3 * levels / (2 * stages)),
    )[0]
