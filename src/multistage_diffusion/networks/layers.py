"""Layers with the initialisation and normalisation that all networks share."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from multistage_diffusion.networks.config import NetworkConfig

__all__ = ["Dropout", "conv", "group_norm", "linear"]

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class GroupNorm(nn.GroupNorm):
    """Torch's, but on a processor it always computes the gradient of its input, needed or not
    (below a frozen encoder).

    Without it, the gradient of the weights ends the process where images lie by pixel (torch 2.13).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        constant = (
            torch.is_grad_enabled() and not input.requires_grad and input.device.type == "cpu"
        )
        if constant and not torch.compiler.is_compiling():
            input = input.detach().requires_grad_()  # noqa: A001
        return super().forward(input)


def group_norm(channels: int, config: NetworkConfig) -> nn.GroupNorm:
    """Group normalisation with the most groups that divide ``channels``.

    There are at most ``config.groups`` groups, of ``config.group_channels`` channels or more if
    possible.
    """
    limit = max(1, min(config.groups, channels // config.group_channels))
    groups = next(g for g in range(limit, 0, -1) if channels % g == 0)
    return GroupNorm(groups, channels, eps=config.norm_eps)


def _init(layer: Layer, gain: float) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv(inputs: int, outputs: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size, Xavier uniform with the given gain."""
    return _init(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), gain)


def linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer, Xavier uniform with the given gain."""
    return _init(nn.Linear(inputs, outputs, bias=bias), gain)


class Dropout(nn.Module):
    """Zeroes entries at random in training and scales the others, with 16 random bits for each
    entry.

    Torch's own draws one number for each entry, one after another on a CPU, which takes a seventh
    of a training step there.

    Args:
        probability: of a zero, at least 0 and less than 1; rounded to a multiple of ``1 / 65536``.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.zeros = round(probability * 65536)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.zeros):
            return x
        if torch.compiler.is_compiling():  # compilers draw fast, and know torch's own
            return nn.functional.dropout(x, self.zeros / 65536)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(
            -(2**63), None
        )
        draws = bits.view(torch.int16)[: x.numel()].as_strided(
            x.shape, torch.empty_like(x).stride()
        )
        return x * (draws >= self.zeros - 32768).to(x.dtype).mul_(65536 / (65536 - self.zeros))
