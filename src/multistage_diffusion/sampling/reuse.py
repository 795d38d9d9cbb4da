"""Encoder reuse: the features of one call are used by later decoder calls in the same stage."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.networks.encoder import Features
from multistage_diffusion.schedule import as_float64

__all__ = ["ReusingDenoiser"]


@dataclass
class ReusingDenoiser:
    """A network whose encoder is not evaluated at some noise levels.

    There the stem, the embedding and the decoder are evaluated, with the features of the last call
    that had its encoder evaluated. Where a stage begins the encoder is always evaluated. The calls
    of a solver for the same samples must follow each other.
    """

    denoiser: NetworkDenoiser
    reused: Collection[float]
    """The levels."""
    stage: int = field(default=-1, init=False)
    features: Features | None = field(default=None, init=False)

    def __call__(
        self, x: Tensor, sigma: Tensor | float, conditions: Conditions = NO_CONDITIONS
    ) -> Tensor:
        """Denoises, see ``Denoiser``; all samples at the same noise level."""
        first = as_float64(sigma).flatten()[:1]
        level, stage = float(first), int(self.denoiser.stages.index(first))
        known = self.features if stage == self.stage and level in self.reused else None
        self.stage = stage
        result, self.features = self.denoiser.with_features(x, level, conditions, known)
        return result
