"""What a solver does where the denoiser jumps, at the boundaries between stages."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.preconditioning import column
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.stages import Stages

__all__ = ["BLEND", "BlendedDenoiser", "BoundaryRule", "blend_weight", "shifted", "snapped"]

BoundaryRule = Literal["keep", "restart", "snap", "blend"]
BLEND = 1.25
"""A band reaches from a boundary divided by this to the boundary times this."""


def snapped(grid: Tensor, stages: Stages) -> Tensor:
    """The grid with its nearest inner level moved to each boundary inside it.

    No level is moved twice, and none past another.

    Args:
        grid: decreasing levels ``[steps + 1]``, the last one may be 0.
        stages: whose boundaries they are.
    """
    levels, moved = grid.tolist(), set[int]()
    for boundary in stages.boundaries:
        inner = [k for k in range(1, len(levels) - 1) if k not in moved and levels[k] > 0]
        if not inner or not levels[-1] < boundary < levels[0]:
            continue
        nearest = min(inner, key=lambda k: abs(math.log(levels[k] / boundary)))
        tried = [*levels[:nearest], boundary, *levels[nearest + 1 :]]
        if all(a > b for a, b in pairwise(tried)):
            levels, moved = tried, moved | {nearest}
    return grid.new_tensor(levels)


def blend_weight(sigma: Tensor, stages: Stages, width: float = BLEND) -> Tensor:
    """Share of the decoder above a boundary at levels in its band; 0 outside of the bands."""
    weight = torch.zeros_like(sigma)
    for boundary in stages.boundaries:
        share = (sigma / boundary).log() / (2 * math.log(width)) + 0.5
        weight = torch.where((share > 0) & (share < 1), share, weight)
    return weight


def shifted(stages: Stages, factor: float = BLEND) -> Stages:
    """Stages with all boundaries moved by a factor: those below serve their band, or those above.

    Args:
        stages: the stages.
        factor: the width of the bands for the stages below, its inverse for those above.
    """
    return Stages(tuple(boundary * factor for boundary in stages.boundaries))


@dataclass(frozen=True)
class BlendedDenoiser:
    """A network whose decoders take over from each other gradually.

    Within a band around a boundary both decoders are evaluated and mixed, linearly in log sigma.
    """

    denoiser: NetworkDenoiser
    width: float = BLEND

    def __call__(
        self, x: Tensor, sigma: Tensor | float, conditions: Conditions = NO_CONDITIONS
    ) -> Tensor:
        """Denoises, see ``Denoiser``."""
        level = as_float64(sigma).expand(len(x))
        weight = blend_weight(level, self.denoiser.stages, self.width)
        below = self.below(x, level, conditions)
        if bool((weight == 0).all()):
            return below
        return torch.lerp(below, self.above(x, level, conditions), column(weight, x))

    @cached_property
    def below(self) -> NetworkDenoiser:
        """The network where the decoder below a boundary serves all of its band."""
        return self._view(self.width)

    @cached_property
    def above(self) -> NetworkDenoiser:
        """The network where the decoder above a boundary serves all of its band."""
        return self._view(1 / self.width)

    def _view(self, factor: float) -> NetworkDenoiser:
        """The same network with all boundaries moved by a factor."""
        original = self.denoiser
        moved = shifted(original.stages, factor)
        return NetworkDenoiser(original.network, original.preconditioning, moved, original.dtype)
