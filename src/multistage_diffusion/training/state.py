"""The state of a training run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.training.config import TrainingConfig
from multistage_diffusion.training.distributed.sharding import shard
from multistage_diffusion.training.ema.averages import Averages
from multistage_diffusion.training.learned_weight import Uncertainty

__all__ = ["LEARNED_WEIGHT", "State", "Sums"]


LEARNED_WEIGHT = "uncertainty"


@dataclass
class Sums:
    """What a record is made of, since the last one. On the device: adding to them waits for nothing."""

    loss: Tensor
    """Losses in each stage that are finite, ``[stages]``; of this process's samples."""
    count: Tensor
    """Their number, ``[stages]``."""
    norm: Tensor
    """Norms of the gradient of each encoder and each decoder, over the steps taken, ``[parts]``."""
    taken: Tensor
    """Steps taken."""
    skipped: Tensor
    """Steps left out since loss or gradient were not finite."""

    @staticmethod
    def zero(denoiser: NetworkDenoiser, device: torch.device) -> "Sums":
        """Nothing yet. In float64 where the device has it."""
        kind = torch.float32 if device.type == "mps" else torch.float64
        stages, parts = len(denoiser.stages), len(denoiser.network.parts)
        loss, count, norm, taken, skipped = (
            torch.zeros(n, dtype=kind, device=device) for n in (stages, stages, parts, 1, 1)
        )
        return Sums(loss, count, norm, taken, skipped)

    def clear(self) -> None:
        """Sets all to zero."""
        for value in vars(self).values():
            value.zero_()


@dataclass
class State:
    """All that changes during training. Randomness is a function of ``images`` and needs no state."""

    denoiser: NetworkDenoiser
    optimizer: torch.optim.Optimizer
    averages: Averages
    sums: Sums
    uncertainty: Uncertainty | None = None
    """The learned weight of the loss, if there is one."""
    images: int = 0
    """Images seen."""
    seconds: float = field(default=0.0)
    """Time spent, over all sittings."""
    macs: float = 0.0
    """Multiply-accumulates spent."""

    @staticmethod
    def begin(denoiser: NetworkDenoiser, config: TrainingConfig) -> "State":
        """The state before the first step."""
        averages = Averages(denoiser, config)
        if config.shard and distributed.world_size() > 1:
            for network in (denoiser.network, *averages.networks()):
                shard(network)
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        device = next(denoiser.parameters()).device
        uncertainty = Uncertainty().to(device) if config.learned_weight else None
        groups = [
            {
                "params": list(module.parameters()),
                "weight_decay": 0.0 if module is uncertainty else config.weight_decay,
            }
            for module in _modules(denoiser, uncertainty)
        ]
        optimizer = kind(groups, config.learning_rate, betas=(0.9, 0.999), fused=True)
        return State(denoiser, optimizer, averages, Sums.zero(denoiser, device), uncertainty)

    def modules(self) -> list[nn.Module]:
        """All that is trained: each encoder, each decoder, and the learned weight if there is one."""
        return _modules(self.denoiser, self.uncertainty)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same, parameter by parameter, under the names of checkpoints."""
        yield from self.denoiser.network.named_parameters()
        if self.uncertainty is not None:
            yield LEARNED_WEIGHT, self.uncertainty.weight

    def count(self, counts: Sequence[int]) -> None:
        """Counts the images of a batch, by stage and over all processes, and takes the weights after it into the averages."""
        self.images += sum(counts)
        self.averages.update(self.denoiser.network, counts)


def _modules(denoiser: NetworkDenoiser, uncertainty: Uncertainty | None) -> list[nn.Module]:
    parts = list(denoiser.network.parts)
    return parts if uncertainty is None else [*parts, uncertainty]
