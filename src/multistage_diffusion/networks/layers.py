"""Layers with the initialisation and normalisation that all networks share."""

from typing import TypeVar

from torch import nn

from multistage_diffusion.config import NetworkConfig

__all__ = ["conv", "group_norm", "linear"]

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def group_norm(channels: int, config: NetworkConfig) -> nn.GroupNorm:
    """Group normalisation with the most groups that divide ``channels``.

    There are at most ``config.groups`` groups, of ``config.group_channels`` channels or more if possible.
    """
    limit = max(1, min(config.groups, channels // config.group_channels))
    groups = next(g for g in range(limit, 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=config.norm_eps)


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
