"""How noise levels are drawn for training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import RunConfig

__all__ = ["Levels", "stage_levels", "stage_shares"]

SMALLEST_SHARE = 1e-12  # of a stage whose levels float64 quantiles can still tell apart
QUANTILES = (2.0**-53, 1 - 2.0**-53)  # whose levels are finite for densities without ends


@dataclass(frozen=True)
class Levels:
    """How noise levels are drawn for training.

    Each stage gets a share of the images; inside it levels follow the schedule. Levels are
    stratified: one from each of as many equal cells as there are images. A mean over them has the
    same expectation as over independent levels, and less variance.

    Args:
        schedule: the density.
        stages: the parts of the schedule that have shares, usually the network's stages.
        shares: share of each stage, summing to 1.
        single: whether all levels of a batch are in one stage, drawn by the shares.
    """

    schedule: Schedule
    stages: Stages
    shares: tuple[float, ...]
    single: bool = False

    @staticmethod
    def of(config: RunConfig) -> "Levels":
        """The levels of a run.

        Raises:
            BadInput: if there are not as many shares as stages, a stage has no levels, or
                ``share_boundaries`` are given for a network that has stages.
        """
        draws = config.training.draws
        if draws.share_boundaries and config.model.boundaries:
            raise BadInput(
                "The setting share_boundaries is for a network with a single decoder; others have "
                "shares by stage."
            )
        schedule = config.model.density
        stages = Stages(draws.share_boundaries or config.model.boundaries)
        shares = _shares(draws.shares, schedule, stages)
        return Levels(schedule, stages, shares, draws.batches == "single-stage")

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """``count`` noise levels: float64 ``[count]``."""
        if self.single:
            shares = torch.tensor(self.shares, dtype=torch.float64)
            stage = int(torch.multinomial(shares, 1, generator=source))
            return stage_levels(self.schedule, self.stages, stage, count, source)
        position = _stratified(count, source).numpy()
        shared = _cumulative(self.shares)
        natural = _cumulative(_natural_shares(self.schedule, self.stages))
        u = np.interp(position, shared / shared[-1], natural / natural[-1])
        stages = np.searchsorted(shared[1:-1], position, side="right")
        sigma = self.schedule.sigma(torch.from_numpy(u).clamp(*QUANTILES))
        return self._inside(sigma, torch.from_numpy(stages))

    def weights(self, sigma: Tensor) -> Tensor:
        """The schedule's density over that of this draw at each level: float64 like ``sigma``."""
        natural = torch.tensor(_natural_shares(self.schedule, self.stages), dtype=torch.float64)
        ratio = natural / torch.tensor(self.shares, dtype=torch.float64)
        return ratio[self.stages.index(sigma)]

    def distance(self, other: "Levels") -> float:
        """Largest difference of two cumulative distributions of levels (Kolmogorov's), 0 to 1."""
        edges = {*self.stages.boundaries, *other.stages.boundaries}
        ends = [float(self.schedule.sigma(torch.tensor(u))) for u in np.linspace(0, 1, 65)]
        return max(abs(self.below(sigma) - other.below(sigma)) for sigma in {*edges, *ends})

    def below(self, sigma: float) -> float:
        """Share of the levels below one, with importance left out."""
        u = float(self.schedule.u(sigma))
        natural = _cumulative(_natural_shares(self.schedule, self.stages))
        return float(np.interp(u, natural / natural[-1], _cumulative(self.shares)))

    def _inside(self, sigma: Tensor, stage: Tensor) -> Tensor:
        """Levels moved into the stage they were drawn for, if rounding has crossed its bounds."""
        bounds = [self.stages.bounds(index) for index in range(len(self.stages))]
        return _within(sigma, torch.tensor(bounds, dtype=torch.float64)[stage])


def _within(sigma: Tensor, bounds: Tensor) -> Tensor:
    """Levels moved into half-open intervals ``[..., 2]``, if rounding has crossed their bounds."""
    low, high = bounds.unbind(-1)
    return torch.minimum(torch.maximum(sigma, low), high.nextafter(low))


def _shares(
    given: str | tuple[float, ...], schedule: Schedule, stages: Stages
) -> tuple[float, ...]:
    """Shares of the stages as a setting gives them, summing to 1."""
    natural = _natural_shares(schedule, stages)
    if given == "uniform":
        given = (1.0,) * len(stages)
    if given == "natural":
        given = tuple(natural)
    assert not isinstance(given, str)
    if len(given) != len(stages):
        raise BadInput(f"The setting shares has {len(given)} numbers for {len(stages)} stages.")
    return tuple(float(share) / sum(given) for share in given)


def _natural_shares(schedule: Schedule, stages: Stages) -> list[float]:
    """The probability of each stage.

    Raises:
        BadInput: if the schedule has no levels in a stage.
    """
    shares = [stages.share(schedule, stage) for stage in range(len(stages))]
    if min(shares) < SMALLEST_SHARE:
        low, high = stages.bounds(shares.index(min(shares)))
        raise BadInput(
            f"The schedule has no noise levels between sigma {low:.4g} and {high:.4g}: choose "
            "boundaries inside it, or another --schedule."
        )
    return shares


def _cumulative(shares: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([[0.0], np.cumsum(shares)])


def stage_shares(config: RunConfig) -> tuple[float, ...]:
    """The share of each of a network's stages in its training images."""
    return Levels.of(config).shares if config.model.boundaries else (1.0,)


def stage_levels(
    schedule: Schedule, stages: Stages, stage: int, count: int, source: torch.Generator
) -> Tensor:
    """``count`` stratified levels of the schedule restricted to a stage: float64 ``[count]``.

    Raises:
        BadInput: if the schedule has no levels in a stage.
    """
    low, high = stages.bounds(stage)
    start = float(schedule.u(low)) if low > 0 else 0.0
    u = start + _natural_shares(schedule, stages)[stage] * _stratified(count, source)
    bounds = torch.tensor([low, high], dtype=torch.float64)
    return _within(schedule.sigma(u.clamp(*QUANTILES)), bounds)


def _stratified(count: int, source: torch.Generator) -> Tensor:
    """A uniform number in each of ``count`` equal cells of [0, 1]."""
    offset = torch.rand(count, dtype=torch.float64, generator=source)
    return (torch.arange(count) + offset) / count
