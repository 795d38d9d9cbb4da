"""The averaged weights that training keeps, and the clock by which each part of the network counts.

An average's half-life is in images. Stages see different shares of the images: by the common clock every image counts for every
decoder, by its own clock a decoder counts the images of its stage alone.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.networks.unet import StagedUNet
from multistage_diffusion.training.config import TrainingConfig
from multistage_diffusion.training.ema.profiles import exponent, power_decay

__all__ = ["Averages", "ema_decay"]


def ema_decay(config: TrainingConfig, seen: int, step: int) -> float:
    """Decay of the main average for a step of ``step`` images that ends at ``seen`` images.

    The half-life is ramped up (Karras et al. 2024, EDM's code); a step without images changes nothing.
    """
    return 0.5 ** (step / min(config.ema_half_life, config.ema_rampup * seen)) if step else 1.0


class Averages:
    """The averages of a network's weights during training. They begin at the weights as they are.

    Args:
        denoiser: the network that will be trained.
        config: half-life and widths of the averages, and their clock.
    """

    def __init__(self, denoiser: NetworkDenoiser, config: TrainingConfig) -> None:
        self.config = config
        self.main = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.power = [copy.deepcopy(self.main.network) for _ in config.posthoc_ema]
        self.gammas = [exponent(width) for width in config.posthoc_ema]
        self.seen = torch.zeros(len(denoiser.network.parts), dtype=torch.int64)
        """Images that each encoder, then each decoder has counted; on the CPU."""

    def networks(self) -> Iterator[StagedUNet]:
        """The main average and the power-function ones."""
        yield from (self.main.network, *self.power)

    @torch.no_grad()
    def update(self, network: StagedUNet, counts: Sequence[int]) -> None:
        """Takes the weights after a step into the averages.

        Args:
            network: the network that is trained.
            counts: number of images of each stage in the batch, over all processes.
        """
        steps = self._counted(counts)
        self.seen += torch.tensor(steps)
        times = list(zip(self.seen.tolist(), steps, strict=True))
        _blend(self.main.network, network, [ema_decay(self.config, *time) for time in times])
        for gamma, average in zip(self.gammas, self.power, strict=True):
            _blend(average, network, [power_decay(gamma, *time) for time in times])

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The power-function averages, ``<index>.<name of a weight>``."""
        for index, average in enumerate(self.power):
            yield from (
                (f"{index}.{name}", tensor) for name, tensor in average.state_dict().items()
            )

    def _counted(self, counts: Sequence[int]) -> list[int]:
        """How many images of a batch each encoder, then each decoder counts."""
        if self.config.ema_clock == "common":
            return [sum(counts)] * len(self.seen)
        return [*([sum(counts)] if len(self.main.network.encoders) == 1 else counts), *counts]


def _blend(average: StagedUNet, network: StagedUNet, decays: Sequence[float]) -> None:
    """``average <- decay * average + (1 - decay) * weights``, with a decay for each encoder and decoder."""
    for ours, theirs, decay in zip(average.parts, network.parts, decays, strict=True):
        if decay < 1:
            torch._foreach_lerp_(list(ours.parameters()), list(theirs.parameters()), 1 - decay)
