"""The optimizer of a run and its settings."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.muon import MOMENTUM, MuonAndAdam, check_muon, is_matrix

__all__ = ["OptimizationConfig", "frozen_interval", "make_optimizer", "moment_names"]

BETAS = (0.9, 0.999)
OPTIMIZERS: dict[str, type[torch.optim.Adam]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": MuonAndAdam,
}


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(Settings):
    """Optimizer and learning rates.

    A part is an encoder or a decoder.
    """

    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Adam, Adam with decoupled weight decay, or Muon for the weights of convolutions and linear
    layers and adamw for all else."""
    weight_decay: float = setting(0.0, at_least=0, at_most=1000)
    """Weight decay of adamw and muon, multiplied by the learning rate in each step."""
    clip_norm: float = setting(0.0, at_least=0)
    """Largest norm of the gradient; 0 for no limit."""
    warmup_images: int = setting(10_000, at_least=0)
    """Images over which the learning rate rises linearly at the start."""
    learning_rates: tuple[float, ...] = setting((), above=0, at_most=1000)
    """A learning rate for each part (encoders, then decoders) instead of one for all."""
    warmups: tuple[int, ...] = setting((), at_least=0)
    """A warm-up in images for each part instead, counted from when it begins to learn."""
    freeze: tuple[str, ...] = ()
    """When each part keeps its weights: 50000 for the first 50,000 images, 20000:50000 for an
    interval, 0 for never."""
    decay_images: int = setting(0, at_least=0)
    """From this many images on the learning rate falls with the inverse square root of the images
    seen (EDM2); 0 for a constant one."""
    min_snr: float = setting(0.0, at_least=0)
    """Weight the squared error of the denoised image by the signal-to-noise ratio, clipped at this
    value (Hang et al. 2023 use 5); 0 for the weight of the preconditioning."""
    learned_weight: bool = False
    """Learn a weight of the loss as a function of the noise level, so that all levels contribute
    equally (EDM2); the report shows the curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.freeze:
            frozen_interval(text)
        if self.weight_decay and self.optimizer == "adam":
            raise BadInput(
                "The setting weight_decay is for the optimizers adamw and muon: choose one of them."
            )
        if self.min_snr and self.learned_weight:
            raise BadInput("Give min_snr or learned_weight: both decide the weight of the loss.")


def frozen_interval(text: str) -> tuple[int, float]:
    """The images from which and until which a part is frozen.

    ``50000`` means ``0:50000``; ``20000:`` has no end.

    Raises:
        BadInput: if the text is not an interval.
    """
    try:
        start, stop = ("0", text) if text.isdecimal() else text.split(":")
        begin, end = int(start), int(stop) if stop else math.inf
    except ValueError:
        begin, end = 0, -1
    if not 0 <= begin <= end:
        raise BadInput(
            "The setting freeze takes numbers of images such as 50000, 20000:50000 or 20000:, "
            f"not {text!r}."
        )
    return begin, end


def make_optimizer(
    config: OptimizationConfig, parts: Iterable[nn.Module], learned: nn.Module | None
) -> torch.optim.Optimizer:
    """The optimizer of a run: a parameter group for each part, then one for the learned weight.

    Args:
        config: its settings. Learning rates are set before each step.
        parts: encoders, then decoders.
        learned: the learned loss weight, which does not decay, if there is one.

    Raises:
        BadInput: if torch is too old for Muon.
    """
    groups = [
        {"params": list(part.parameters()), "weight_decay": config.weight_decay} for part in parts
    ]
    if learned is not None:
        groups.append({"params": list(learned.parameters()), "weight_decay": 0.0})
    if config.optimizer == "muon":
        check_muon()
    return OPTIMIZERS[config.optimizer](groups, betas=BETAS, fused=True)


def moment_names(optimizer: torch.optim.Optimizer, parameter: Tensor) -> tuple[str, ...]:
    """What an optimizer keeps of a parameter that has learned, besides the number of its steps."""
    if isinstance(optimizer, MuonAndAdam) and is_matrix(parameter):
        return (MOMENTUM,)
    return ("exp_avg", "exp_avg_sq")
