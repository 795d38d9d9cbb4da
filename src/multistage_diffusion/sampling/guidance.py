"""Guidance, with a weight for each stage: classifier-free, or by a weaker network."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.preconditioning import column
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.stages import Stages

__all__ = ["AutoguidedDenoiser", "Guidance", "GuidedDenoiser", "weakened"]

NO_LABEL = -1


@dataclass(frozen=True)
class Guidance:
    """How strongly the class is followed at each noise level."""

    weights: tuple[float, ...] = ()
    """For all stages, or for each; 1 is the conditional model. None for no guidance."""
    within: tuple[float, float] = (0.0, math.inf)
    """Noise levels outside of which the weight is 1 (Kynkaanniemi et al. 2024)."""

    def at(self, sigma: Tensor, stages: Stages) -> Tensor:
        """The weight at each noise level: float64 like ``sigma``."""
        if not self.weights:
            return torch.ones_like(sigma)
        each = self.weights * (len(stages) if len(self.weights) == 1 else 1)
        weight = torch.tensor(each, dtype=torch.float64)[stages.index(sigma)]
        low, high = self.within
        return torch.where((low <= sigma) & (sigma <= high), weight, 1.0)


@dataclass(frozen=True)
class GuidedDenoiser:
    """A conditional network, moved away from its own answer without a class (Ho and Salimans 2021).

    ``D_none + w (D_class - D_none)``; both are evaluated in one batch, and only where w is not 1.
    """

    denoiser: Callable[[Tensor, Tensor, Conditions], Tensor]
    """Of states, noise levels and conditions."""
    conditions: Conditions
    """Classes and context of the B samples."""
    guidance: Guidance
    stages: Stages

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoises, see ``Denoiser``."""
        level = as_float64(sigma).expand(len(x))
        weight = self.guidance.at(level, self.stages)
        if bool((weight == 1).all()):
            return self.denoiser(x, level, self.conditions)
        both = self.denoiser(torch.cat([x, x]), torch.cat([level, level]), self._both())
        given, without = both.chunk(2)
        return without + column(weight, x) * (given - without)

    def _both(self) -> Conditions:
        """The conditions, then none: no class, and a context of zeros as in training."""
        labels, context = self.conditions.labels, self.conditions.context
        return Conditions(
            None if labels is None else torch.cat([labels, torch.full_like(labels, NO_LABEL)]),
            context=None if context is None else torch.cat([context, torch.zeros_like(context)]),
        )


@dataclass(frozen=True)
class AutoguidedDenoiser:
    """A network, moved away from a weaker one (Karras et al. 2024, "autoguidance").

    ``D_weak + w (D - D_weak)``. Both share the encoder pass, so that an evaluation costs one more
    decoder; it is made only where w is not 1.
    """

    denoiser: NetworkDenoiser
    weak: NetworkDenoiser
    """With the encoder of the denoiser, see ``weakened``."""
    guidance: Guidance
    conditions: Conditions = NO_CONDITIONS

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoises, see ``Denoiser``.

        Raises:
            BadInput: if noise levels differ within the batch.
        """
        level = as_float64(sigma).expand(len(x))
        weight = self.guidance.at(level, self.denoiser.stages)
        if bool((weight == 1).all()):
            return self.denoiser(x, level, self.conditions)
        if bool((level != level[0]).any()):
            raise BadInput("Autoguidance needs a solver that gives all images one noise level.")
        at = x, float(level[0]), self.conditions
        strong, features = self.denoiser.with_features(*at)
        weak, _ = self.weak.with_features(*at, features)
        return weak + column(weight, x) * (strong - weak)


def weakened(denoiser: NetworkDenoiser, earlier: NetworkDenoiser) -> NetworkDenoiser:
    """The decoders of an earlier or narrower network behind the encoder of another one.

    Args:
        denoiser: whose encoder is used.
        earlier: whose decoders are used, of the same run or with decoders that were trained for
            this encoder. It is changed.

    Raises:
        BadInput: if the encoders or the stages differ.
    """
    shapes = [
        {name: weight.shape for name, weight in one.network.encoders.state_dict().items()}
        for one in (denoiser, earlier)
    ]
    if shapes[0] != shapes[1] or denoiser.stages != earlier.stages:
        raise BadInput("The weaker model has another encoder or other stages than the model.")
    earlier.network.encoders = denoiser.network.encoders
    return earlier
