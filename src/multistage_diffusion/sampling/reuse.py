"""Encoder reuse: the features of one call serve the decoder calls that follow in the same stage."""

from dataclasses import dataclass, field

from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.networks.encoder import Features
from multistage_diffusion.schedule import as_float64

__all__ = ["ReusingDenoiser", "is_key_call"]


def is_key_call(calls: int, period: int) -> bool:
    """Whether a call evaluates the encoder, after this many calls since the stage began."""
    return calls % period == 0


@dataclass
class ReusingDenoiser:
    """A network whose encoder is evaluated in every ``period``-th call, and where a stage begins.

    In the other calls the stem, the embedding and the decoder are evaluated, with the features of
    the last key call. The calls of a solver for the same samples must follow each other.
    """

    denoiser: NetworkDenoiser
    period: int
    stage: int = field(default=-1, init=False)
    calls: int = field(default=0, init=False)
    features: Features | None = field(default=None, init=False)

    def __call__(
        self, x: Tensor, sigma: Tensor | float, conditions: Conditions = NO_CONDITIONS
    ) -> Tensor:
        """Denoises, see ``Denoiser``; all samples at the same noise level."""
        level = as_float64(sigma).flatten()
        stage = int(self.denoiser.stages.index(level[:1]))
        if stage != self.stage:
            self.stage, self.calls = stage, 0
        known = None if is_key_call(self.calls, self.period) else self.features
        self.calls += 1
        result, self.features = self.denoiser.with_features(x, float(level[0]), conditions, known)
        return result
