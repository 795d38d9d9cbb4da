"""Learning rates of the parts of a network, each encoder and then each decoder, and when a part keeps its weights.

A frozen part gets no gradient: a frozen encoder costs no backward pass, clipping does not see a frozen part, its moments stay
where they are, and its average stays or becomes what the weights are. All of it is a function of the images seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.training.config import RunConfig, interval

__all__ = ["Rate", "Rates", "part_names"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rate:
    """The learning rate of one part: a linear ramp to a constant, from when the part begins to learn."""

    highest: float
    warmup: int
    """Length of the ramp in images."""
    frozen: tuple[int, float] = (0, 0)
    """Images seen from which and until which the weights are kept."""

    def freezes(self, images: int) -> bool:
        """Whether the batch that begins after ``images`` images leaves the weights as they are."""
        return self.frozen[0] <= images < self.frozen[1]

    def at(self, images: int, batch: int) -> float:
        """The rate of the batch of ``batch`` images that begins after ``images`` images; 0 while frozen."""
        begun = int(self.frozen[1]) if self.frozen[1] <= images else 0
        return (
            0.0
            if self.freezes(images)
            else self.highest * min(1.0, (images - begun + batch) / max(self.warmup, 1))
        )


class Rates:
    """The learning rates of a run.

    Args:
        config: the run.

    Raises:
        BadInput: if a setting has not a number for each part.
    """

    def __init__(self, config: RunConfig) -> None:
        recipe, names = config.training, part_names(config.model.network)
        self.batch = recipe.batch_size
        self.common = Rate(recipe.learning_rate, recipe.warmup_images)
        """Of what is learned besides the network."""
        highest = _each("learning_rates", recipe.learning_rates, recipe.learning_rate, names)
        warmups = _each("warmups", recipe.warmups, recipe.warmup_images, names)
        frozen = [interval(text) for text in _each("freeze", recipe.freeze, "0", names)]
        self.parts = tuple(map(Rate, highest, warmups, frozen))

    def __str__(self) -> str:
        """The rates after the warm-up."""
        highest = [f"{part.highest:g}" for part in self.parts]
        return highest[0] if len(set(highest)) == 1 else "/".join(highest)

    def at(self, images: int) -> list[float]:
        """The rate of each part in the batch that begins after ``images`` images."""
        return [part.at(images, self.batch) for part in self.parts]

    def differing(self, images: int) -> list[float]:
        """The same, or nothing if all parts of the run have the same rate throughout."""
        return self.at(images) if len(set(self.parts)) > 1 else []

    def frozen(self, images: int) -> tuple[bool, ...]:
        """Which parts keep their weights in the batch that begins after ``images`` images."""
        return tuple(part.freezes(images) for part in self.parts)

    def apply(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        """Sets rates, and which weights get a gradient.

        Args:
            optimizer: with a group for each part and perhaps one for what is learned besides.
            images: number of images seen before the batch.
        """
        for group, rate in zip(optimizer.param_groups, (*self.parts, self.common), strict=False):
            group["lr"] = rate.at(images, self.batch)
            for parameter in group["params"]:
                parameter.requires_grad_(not rate.freezes(images))


def part_names(network: NetworkConfig) -> list[str]:
    """What the parts of a network are called, in their order."""
    encoders, decoders = len(network.encoder_widths), len(network.decoder_widths)
    first = (
        ["encoder"] if encoders == 1 else [f"encoder {number}" for number in range(1, encoders + 1)]
    )
    return first + (
        ["decoder"] if decoders == 1 else [f"decoder {number}" for number in range(1, decoders + 1)]
    )


def _each(
    setting: str, given: Sequence[Value], common: Value, names: Sequence[str]
) -> Sequence[Value]:
    if given and len(given) != len(names):
        raise BadInput(
            f"The setting {setting} has {len(given)} values for {len(names)} parts: {', '.join(names)}."
        )
    return given or [common] * len(names)
