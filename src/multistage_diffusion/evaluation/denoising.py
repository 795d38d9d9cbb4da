"""Denoising loss: how well a model denoises images, without sampling.

It needs neither samples nor a feature extractor, and no solver adds variance; models of one
schedule and preconditioning can be compared stage by stage and level by level.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from multistage_diffusion.data import Images
from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import Estimate, mean_of_values
from multistage_diffusion.memory import check_memory
from multistage_diffusion.model import Model, with_classes_of
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.monitoring.probe import Probe

__all__ = ["Denoising", "LevelLoss", "measure_denoising"]

LEVELS = 8  # in each stage
FLOATS = 5 * 4  # bytes: images, noise and three denoised images


@dataclass(frozen=True)
class LevelLoss:
    """Loss around one noise level."""

    sigma: float
    """Geometric mean of the levels."""
    loss: Estimate
    optimal: float
    """Loss of the optimal denoiser of these images on the same noisy ones."""


@dataclass(frozen=True)
class Denoising:
    """Mean weighted losses of a model, with the weight it was trained with."""

    mean: Estimate
    """Over the schedule's own density of levels: the stages weighted by their shares."""
    stages: list[Estimate]
    optimal: list[float]
    """Losses of the optimal denoiser of the images, which no denoiser can beat on them."""
    zero: list[float]
    """Losses of a network that outputs zeros."""
    levels: list[LevelLoss]
    """In increasing order of the noise level."""


def measure_denoising(
    model: Model, images: Images, stages: Stages, per_stage: int, seed: int = 0
) -> Denoising:
    """Losses on the same images, noise and levels for every model of the same stages.

    Args:
        model: the model; a conditional one is given the label of each image.
        images: images to denoise, which the model may have been trained on.
        stages: parts of the schedule by which losses are reported.
        per_stage: noisy images in each stage, a multiple of 8.
        seed: of the choice of images, of noise and levels.

    Raises:
        BadInput: if images and model do not fit.
    """
    _check(model, images, per_stage)
    images = with_classes_of(model.config, images)
    values = len(stages) * per_stage * math.prod(images.shape)
    purpose = f"The denoising loss on {per_stage:,} images in each stage"
    check_memory(FLOATS * values, purpose, "give fewer --images")
    schedule = model.config.density
    conditional = model.config.classes > 0
    probe = Probe.draw(images, stages, schedule, conditional, seed, per_stage)
    device = default_device()
    losses = probe.network_losses(model.denoiser.to(device), device)
    optimal = probe.optimal_losses(images, model.denoiser)
    by_stage = [mean_of_values(part) for part in losses.chunk(len(stages))]
    return Denoising(
        mean=_weighted(by_stage, [stages.share(schedule, k) for k in range(len(stages))]),
        stages=by_stage,
        optimal=probe.per_stage(optimal),
        zero=probe.zero_loss(model.denoiser),
        levels=list(_levels(probe.sigma, losses, optimal, LEVELS * len(stages))),
    )


def _check(model: Model, images: Images, per_stage: int) -> None:
    if images.shape != model.config.shape:
        raise BadInput(
            f"The images are {'x'.join(map(str, images.shape))} (channels, height, width), the "
            f"model's {'x'.join(map(str, model.config.shape))}: give data of the same kind."
        )
    if per_stage < LEVELS or per_stage % LEVELS:
        raise BadInput(
            f"The denoising loss takes a multiple of {LEVELS} images in each stage, not "
            f"{per_stage}: give other --images."
        )


def _weighted(estimates: Sequence[Estimate], shares: Sequence[float]) -> Estimate:
    """The weighted mean of independent estimates."""
    value = sum(share * one.value for share, one in zip(shares, estimates, strict=True))
    margins = [one.interval[1] - one.value for one in estimates if one.interval]
    if len(margins) < len(estimates):
        return Estimate(value)
    squares = ((share * margin) ** 2 for share, margin in zip(shares, margins, strict=True))
    margin = sum(squares) ** 0.5
    return Estimate(value, (value - margin, value + margin))


def _levels(sigma: Tensor, losses: Tensor, optimal: Tensor, count: int) -> Iterable[LevelLoss]:
    for level, loss, least in zip(*(x.chunk(count) for x in (sigma, losses, optimal)), strict=True):
        mean = float(level.log().mean().exp())
        yield LevelLoss(mean, mean_of_values(loss), float(least.mean()))
