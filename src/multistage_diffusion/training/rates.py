"""Learning rates of the parts of a network, and when a part keeps its weights.

The parts are the encoders, then the decoders. A frozen part gets no gradient: a frozen encoder
costs no backward pass, a frozen part is ignored by clipping, its moments do not change, and
its average approaches its weights. All of it is a function of the images seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.optimization import frozen_interval

__all__ = ["Rate", "Rates", "part_names"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rate:
    """The learning rate of a part: a linear warm-up to a constant, which may decay in the end."""

    highest: float
    warmup: int
    """Length of the ramp in images, from when the part learns."""
    frozen: tuple[int, float] = (0, 0)
    """Images seen from which and until which the weights are kept."""
    decay: int = 0
    """Images seen from which the rate falls with their inverse square root; 0 for never."""

    def freezes(self, images: int) -> bool:
        """Whether the batch that begins after ``images`` images leaves the weights as they are."""
        start, stop = self.frozen
        return start <= images < stop

    def at(self, images: int, batch: int) -> float:
        """The rate of the batch of ``batch`` images that begins after ``images`` images.

        0 while the part is frozen.
        """
        if self.freezes(images):
            return 0.0
        _, stop = self.frozen
        learned = images - int(stop) if stop <= images else images
        ramp = min(1.0, (learned + batch) / max(self.warmup, 1))
        decay = (self.decay / (images + batch)) ** 0.5 if self.decay else 1.0
        return self.highest * ramp * min(1.0, decay)


class Rates:
    """The learning rates of a run.

    Args:
        config: the run.

    Raises:
        BadInput: if a setting does not have a value for each part.
    """

    def __init__(self, config: RunConfig) -> None:
        training = config.training
        options = training.optimization
        names = part_names(config.model.network)
        highest = _each("learning_rates", options.learning_rates, training.learning_rate, names)
        warmups = _each("warmups", options.warmups, options.warmup_images, names)
        frozen = [frozen_interval(text) for text in _each("freeze", options.freeze, "0", names)]
        self.batch = training.batch_size
        decays = [options.decay_images] * len(names)
        self.parts = tuple(map(Rate, highest, warmups, frozen, decays))
        self.other = Rate(training.learning_rate, options.warmup_images, decay=decays[0])
        """Rate of what is trained in addition to the network."""

    def __str__(self) -> str:
        """The rates after the warm-up."""
        highest = [f"{part.highest:g}" for part in self.parts]
        return highest[0] if len(set(highest)) == 1 else "/".join(highest)

    def at(self, images: int) -> list[float]:
        """The rate of each part in the batch that begins after ``images`` images."""
        return [part.at(images, self.batch) for part in self.parts]

    def at_if_different(self, images: int) -> list[float]:
        """As ``at``, but empty if all parts of the run have the same rate throughout."""
        return self.at(images) if len(set(self.parts)) > 1 else []

    def frozen(self, images: int) -> tuple[bool, ...]:
        """Which parts keep their weights in the batch that begins after ``images`` images."""
        return tuple(part.freezes(images) for part in self.parts)

    def apply(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        """Sets learning rates, and which weights get a gradient.

        Args:
            optimizer: with a group for each part, and perhaps one for what is trained in addition.
            images: images seen before the batch.
        """
        rates = (*self.parts, self.other)
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate.at(images, self.batch)
            for parameter in group["params"]:
                parameter.requires_grad_(not rate.freezes(images))


def part_names(network: NetworkConfig) -> list[str]:
    """The names of the parts of a network, in order."""
    encoders = _numbered("encoder", len(network.encoder_widths))
    return encoders + _numbered("decoder", len(network.decoder_widths))


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name} {number}" for number in range(1, count + 1)]


def _each(
    setting: str, given: Sequence[Value], common: Value, names: Sequence[str]
) -> Sequence[Value]:
    """A value for each part: those given, or else the common one.

    Raises:
        BadInput: if the number of values given is not that of the parts.
    """
    if given and len(given) != len(names):
        raise BadInput(
            f"The setting {setting} has {len(given)} values for {len(names)} parts: "
            f"{', '.join(names)}."
        )
    return given or [common] * len(names)
