"""The averaged weights that training keeps.

The half-life of an average is counted in images. Stages see different shares of the images: by the
common clock every image counts for every decoder; by its own clock a decoder counts only the images
of its stage.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.networks.unet import StagedUNet
from multistage_diffusion.training.ema.config import AveragingConfig
from multistage_diffusion.training.ema.profiles import exponent, power_decay

__all__ = ["Averages", "ema_decay"]


def ema_decay(config: AveragingConfig, seen: int, step: int) -> float:
    """Decay of the main average for a step of ``step`` images that ends at ``seen`` images.

    The half-life is ramped up as in EDM's code (Karras et al. 2022). A step without images changes
    nothing.
    """
    if step == 0:
        return 1.0
    half_life = min(config.ema_half_life, config.ema_rampup * seen)
    return float(0.5 ** (step / half_life))


class Averages:
    """The averages of a network's weights during training. They begin as copies of the weights.

    Args:
        denoiser: the network that will be trained.
        config: half-life, widths and clock of the averages.
    """

    def __init__(self, denoiser: NetworkDenoiser, config: AveragingConfig) -> None:
        self.config = config
        self.main = copy.deepcopy(denoiser).eval().requires_grad_(False)
        self.power = [copy.deepcopy(self.main.network) for _ in config.posthoc_ema]
        self.gammas = [exponent(width) for width in config.posthoc_ema]
        self.seen = torch.zeros(len(denoiser.network.parts), dtype=torch.int64)
        """Images that each encoder, then each decoder has counted; on the CPU."""

    def networks(self) -> Iterator[StagedUNet]:
        """The main average, then the power-function averages."""
        yield from (self.main.network, *self.power)

    @torch.no_grad()
    def update(self, network: StagedUNet, counts: Sequence[int]) -> None:
        """Updates the averages with the weights after a step.

        Args:
            network: the network that is trained.
            counts: images of each stage in the batch, over all ranks.
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
            tensors = average.state_dict().items()
            yield from ((f"{index}.{name}", tensor) for name, tensor in tensors)

    def _counted(self, counts: Sequence[int]) -> list[int]:
        """How many images of a batch each encoder, then each decoder counts."""
        if self.config.ema_clock == "common":
            return [sum(counts)] * len(self.seen)
        network = self.main.network
        kinds = (network.encoders, network.decoders)
        each = [[sum(counts)] if len(parts) == 1 else counts for parts in kinds]
        return [*each[0], *each[1]]


def _blend(average: StagedUNet, network: StagedUNet, decays: Sequence[float]) -> None:
    """``average <- decay * average + (1 - decay) * weights``, with a decay for each part."""
    for ours, theirs, decay in zip(average.parts, network.parts, decays, strict=True):
        if decay < 1:
            torch._foreach_lerp_(list(ours.parameters()), list(theirs.parameters()), 1 - decay)
