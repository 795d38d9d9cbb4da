"""Encoder reuse: the features of one call serve the decoder calls that follow in the same stage."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.networks.encoder import Features
from multistage_diffusion.schedule import as_float64

__all__ = ["ReusingDenoiser", "stale_errors"]


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


@torch.inference_mode()
def stale_errors(
    denoiser: NetworkDenoiser,
    states: Sequence[Tensor],
    levels: Sequence[float],
    conditions: Conditions = NO_CONDITIONS,
) -> NDArray[np.float64]:
    """What is lost at level i if the encoder was last evaluated at level k: ``[k, i]``, an RMS.

    Infinite before k and in other stages than that of k.

    Args:
        denoiser: the network.
        states: on a path, ``[B, C, H, W]`` at each of these levels.
        levels: decreasing and positive.
        conditions: of the B samples.
    """
    stages = denoiser.stages.index(torch.tensor(levels, dtype=torch.float64)).tolist()
    errors = np.full((len(levels), len(levels)), np.inf)
    fresh = [
        denoiser.with_features(x, level, conditions)
        for x, level in zip(states, levels, strict=True)
    ]
    for k, (_, features) in enumerate(fresh):
        for i in (i for i in range(k, len(levels)) if stages[i] == stages[k]):
            stale, _ = denoiser.with_features(states[i], levels[i], conditions, features)
            errors[k, i] = float((stale - fresh[i][0]).double().square().mean().sqrt())
    return errors
