"""Stages that depend on the schedule alone, after Go et al. 2023, "Addressing Negative Transfer in Diffusion Models".

Consecutive stages minimise the sum of the distances of their levels to the middle one, in time or in log SNR; each is between
one half and one and a half times as long as the mean.
"""

import math

import numpy as np
import torch

from multistage_diffusion.clustering.partition import best_partition, middle_values
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages

__all__ = ["distance_stages"]

STEPS = 200


def distance_stages(schedule: Schedule, method: str, stages: int) -> Stages:
    """Stages on ``STEPS`` levels at equal quantiles of the schedule.

    Args:
        schedule: gives levels and their share. Time is the quantile, which for the VP and discrete schedules is their own clock.
        method: ``timestep`` or ``snr``.
        stages: number of stages.
    """
    u = np.arange(1, STEPS + 1) / STEPS
    inside = np.minimum(u, 1 - 0.5 / STEPS)  # the last level of a schedule without an end
    sigma = schedule.sigma(torch.from_numpy(inside if math.isinf(schedule.sigma(1.0)) else u))
    position = u if method == "timestep" else -2 * sigma.log().numpy()
    value = middle_values(np.abs(position[:, None] - position[None, :]))
    cuts, _ = best_partition(value, stages, math.ceil(STEPS / (2 * stages)), math.floor(3 * STEPS / (2 * stages)))
    return Stages(tuple(sigma[cuts].tolist()))
