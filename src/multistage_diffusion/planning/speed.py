"""How fast this machine trains and evaluates a network.

Short measurements, for an estimate of a whole run.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.precision import dtype_of
from multistage_diffusion.training.state import State

__all__ = ["Speed", "measure_speed"]

Batch = tuple[Tensor, Tensor, Tensor, Conditions]


@dataclass(frozen=True)
class Speed:
    """Seconds, each a median."""

    training: list[float]
    """For one image of each stage, forward and backward."""
    sampling: list[float]
    """For one evaluation of one image in each stage."""
    step: float
    """For one step of optimiser and averaged weights, whatever the batch."""


def measure_speed(
    config: RunConfig, device: torch.device | str = "cpu", seconds: float = 0.5
) -> Speed:
    """Measures on batches of one stage at a time.

    Args:
        config: the run; its precision is used, and its batch size unless a step would take longer
            than ``seconds``.
        device: where to compute.
        seconds: about how long each of the measurements may take, a few for each stage.
    """
    denoiser = set_compute_dtype(
        build_denoiser(config.model).to(device), dtype_of(config.training.precision)
    )
    state = State.initial(denoiser, config.training)
    training, sampling = [], []
    for stage in range(len(denoiser.stages)):
        batches = [_batch(config, stage, size, device) for size in (1, config.training.batch_size)]
        training.append(
            _per_image(lambda batch: denoiser.loss(*batch).mean().backward(), batches, seconds)
        )
        with torch.inference_mode():
            sampling.append(_per_image(lambda batch: denoiser.loss(*batch), batches, seconds))
    return Speed(training, sampling, _median(lambda: _update(state), seconds))


def _update(state: State) -> None:
    state.optimizer.step()
    state.count([1] * len(state.denoiser.stages))


def _batch(config: RunConfig, stage: int, size: int, device: torch.device | str) -> Batch:
    """Images, levels, noise and labels in one stage."""
    schedule, stages = config.model.density, Stages(config.model.boundaries)
    low, high = stages.bounds(stage)
    inside = (
        (float(schedule.u(low)) if low > 0 else 0.0)
        + (float(schedule.u(high)) if high < float("inf") else 1.0)
    ) / 2
    y = torch.zeros(size, *config.model.shape, device=device).to(memory_format=MEMORY_FORMAT)
    labels = torch.zeros(size, dtype=torch.long, device=device) if config.model.classes else None
    return y, schedule.sigma(inside).expand(size), torch.randn_like(y), Conditions(labels)


def _per_image(work: Callable[[Batch], object], batches: list[Batch], seconds: float) -> float:
    """Seconds for an image in the largest part of a batch that takes no longer than ``seconds``."""
    one, whole = batches
    work(one)
    start = time.perf_counter()
    work(one)
    size = max(1, min(len(whole[0]), int(seconds / max(time.perf_counter() - start, 1e-9))))
    y, sigma, noise, conditions = whole
    part = (y[:size], sigma[:size], noise[:size], conditions.at(slice(size)))
    return _median(lambda: work(part), seconds) / size


def _median(work: Callable[[], object], seconds: float) -> float:
    """Median time of at least three calls, and more while there is time.

    A first call is not counted.
    """
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
