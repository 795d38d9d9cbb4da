"""The state of a training run: all that changes from step to step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import TrainingConfig, stages_of_records
from multistage_diffusion.training.distributed.sharding import shard
from multistage_diffusion.training.distributed.shards import check_support
from multistage_diffusion.training.ema.averages import Averages
from multistage_diffusion.training.learned_weight import LearnedWeight
from multistage_diffusion.training.ledger import Ledger
from multistage_diffusion.training.optimization import make_optimizer

__all__ = ["RunningSums", "State"]

LEARNED_WEIGHT = "uncertainty"  # its name in checkpoints
WITH_FLOAT64 = ("cpu", "cuda", "xpu")  # devices


@dataclass
class RunningSums:
    """Sums since the last record. They stay on the device, so that adding never waits for it."""

    loss: Tensor
    """Finite losses in each stage, ``[stages]``; of the samples of this rank."""
    count: Tensor
    """Number of these losses, ``[stages]``."""
    norm: Tensor
    """Gradient norms of each encoder and decoder over the steps taken, ``[parts]``."""
    taken: Tensor
    """Steps taken, ``[1]``."""
    skipped: Tensor
    """Steps skipped because loss or gradient were not finite, ``[1]``."""

    @staticmethod
    def zeros(stages: int, parts: int, device: torch.device) -> "RunningSums":
        """Sums at zero, in float64 where the device supports it."""
        dtype = torch.float64 if device.type in WITH_FLOAT64 else torch.float32
        sizes = (stages, stages, parts, 1, 1)
        return RunningSums(*(torch.zeros(size, dtype=dtype, device=device) for size in sizes))

    def clear(self) -> None:
        """Sets all sums to zero."""
        for value in vars(self).values():
            value.zero_()


@dataclass
class State:
    """All that changes during training.

    Randomness is a function of ``images`` and needs no state.
    """

    denoiser: NetworkDenoiser
    optimizer: torch.optim.Optimizer
    averages: Averages
    sums: RunningSums
    stages: Stages
    """The stages by which losses are summed and recorded."""
    learned_weight: LearnedWeight | None = None
    images: int = 0
    """Images seen."""
    ledger: Ledger = field(default_factory=Ledger)
    """What the run has cost."""

    @staticmethod
    def initial(denoiser: NetworkDenoiser, config: TrainingConfig) -> "State":
        """The state before the first step."""
        averages = Averages(denoiser, config.averaging)
        if config.execution.shard and distributed.world_size() > 1:
            check_support()
            for network in (denoiser.network, *averages.networks()):
                shard(network)
        device = next(denoiser.parameters()).device
        learned = LearnedWeight().to(device) if config.optimization.learned_weight else None
        optimizer = make_optimizer(config.optimization, denoiser.network.parts, learned)
        stages = stages_of_records(denoiser.stages, config)
        sums = RunningSums.zeros(len(stages), len(denoiser.network.parts), device)
        return State(denoiser, optimizer, averages, sums, stages, learned)

    def modules(self) -> list[nn.Module]:
        """All that is trained: encoders, decoders, and the learned weight if there is one."""
        parts = list(self.denoiser.network.parts)
        return parts if self.learned_weight is None else [*parts, self.learned_weight]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same by parameter, with the names that checkpoints use."""
        yield from self.denoiser.network.named_parameters()
        if self.learned_weight is not None:
            yield LEARNED_WEIGHT, self.learned_weight.weight

    def count(self, counts: Sequence[int]) -> None:
        """Counts the images of a step and updates the averages.

        Args:
            counts: images of each stage in the batch, over all ranks.
        """
        self.images += sum(counts)
        self.averages.update(self.denoiser.network, counts)
