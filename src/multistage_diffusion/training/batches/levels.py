"""How noise levels are drawn for training."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import SCHEDULES, Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import RunConfig

__all__ = ["Levels", "stage_levels", "stage_shares"]


@dataclass(frozen=True)
class Levels:
    """How noise levels are drawn for training.

    A stage k gets a share of the images; inside it levels follow the schedule. Levels are stratified: one from each of as many
    equal cells as there are images. Any mean over them has the same expectation as over independent levels and less variance.

    Args:
        schedule: the density.
        stages: the parts of the schedule that have shares, as a rule the network's stages.
        shares: share of each stage, summing to 1.
        single: whether all levels of a batch lie in one stage, drawn by the shares.
    """

    schedule: Schedule
    stages: Stages
    shares: tuple[float, ...]
    single: bool = False

    @staticmethod
    def of(config: RunConfig) -> "Levels":
        """As a run's configuration says.

        Raises:
            BadInput: if there are not as many shares as stages, or the stages have shares and others are named.
        """
        if config.training.share_boundaries and config.model.boundaries:
            raise BadInput(
                "The setting share_boundaries is for a network with a single decoder; others have shares by stage."
            )
        schedule, recipe = SCHEDULES[config.model.schedule], config.training
        stages = Stages(recipe.share_boundaries or config.model.boundaries)
        given = recipe.shares
        if given == "uniform":
            given = (1.0,) * len(stages)
        if given == "natural":
            given = tuple(stages.share(schedule, stage) for stage in range(len(stages)))
        if len(given) != len(stages):
            raise BadInput(f"The setting shares has {len(given)} numbers for {len(stages)} stages.")
        return Levels(
            schedule,
            stages,
            tuple(float(share) / sum(given) for share in given),
            recipe.batches == "single-stage",
        )

    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        """``count`` noise levels: float64 ``[count]``."""
        if self.single:
            stage = int(
                torch.multinomial(torch.tensor(self.shares, dtype=torch.float64), 1, generator=draw)
            )
            return stage_levels(self.schedule, self.stages, stage, count, draw)
        place = _stratified(count, draw)
        shared, natural = (
            np.concatenate([[0.0], np.cumsum(shares)]) for shares in (self.shares, self._natural())
        )
        sigma = self.schedule.sigma(
            torch.from_numpy(np.interp(place.numpy(), shared / shared[-1], natural / natural[-1]))
        )
        return self._kept_apart(
            sigma, torch.from_numpy(np.searchsorted(shared[1:-1], place.numpy(), side="right"))
        )

    def weights(self, sigma: Tensor) -> Tensor:
        """By how much more often than in this draw the schedule has each level, by its stage: float64 like ``sigma``."""
        ratio = torch.tensor(self._natural(), dtype=torch.float64) / torch.tensor(
            self.shares, dtype=torch.float64
        )
        return ratio[self.stages.index(sigma)]

    def _natural(self) -> list[float]:
        return [self.stages.share(self.schedule, stage) for stage in range(len(self.stages))]

    def _kept_apart(self, sigma: Tensor, stage: Tensor) -> Tensor:
        """Levels in the stage they were drawn for, in spite of rounding at its bounds."""
        low, high = (
            torch.tensor(ends, dtype=torch.float64)[stage]
            for ends in zip(*map(self.stages.bounds, range(len(self.stages))), strict=True)
        )
        return torch.minimum(torch.maximum(sigma, low), high.nextafter(low))


def stage_shares(config: RunConfig) -> tuple[float, ...]:
    """The share of each of a network's stages in its training images."""
    return Levels.of(config).shares if config.model.boundaries else (1.0,)


def stage_levels(
    schedule: Schedule, stages: Stages, stage: int, count: int, draw: torch.Generator
) -> Tensor:
    """``count`` stratified levels of the schedule restricted to one stage: float64 ``[count]``."""
    low, high = stages.bounds(stage)
    start = float(schedule.u(low)) if low > 0 else 0.0
    return schedule.sigma(start + stages.share(schedule, stage) * _stratified(count, draw)).clamp(
        low, high
    )


def _stratified(count: int, draw: torch.Generator) -> Tensor:
    return (torch.arange(count) + torch.rand(count, dtype=torch.float64, generator=draw)) / count
