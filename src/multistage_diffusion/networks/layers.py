"""Layers with the initialisation and normalisation that all networks share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn

from multistage_diffusion.networks.config import NetworkConfig

__all__ = ["Dropout", "conv", "dropout_from", "generators", "group_norm", "linear"]

_SOURCES: ContextVar[Sequence[torch.Generator]] = ContextVar("sources of dropout", default=())
_GENERATORS: list[torch.Generator] = []  # reused, since making one takes longer than seeding it

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class GroupNorm(nn.GroupNorm):
    """Torch's group normalisation, with the gradient of its input always computed on the CPU.

    The gradient is not needed below a frozen encoder, but if it is left out there, that of the
    weights ends the process for channels-last images (torch 2.13).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """``[B, C, H, W]``, normalised."""
        constant = torch.is_grad_enabled() and not input.requires_grad
        if constant and input.device.type == "cpu" and not torch.compiler.is_compiling():
            return super().forward(input.detach().requires_grad_())
        return super().forward(input)


def group_norm(channels: int, config: NetworkConfig) -> nn.GroupNorm:
    """Group normalisation with the most groups that divide ``channels``.

    There are at most ``config.groups`` groups, of at least ``config.group_channels`` channels if
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


def generators(seeds: Tensor) -> list[torch.Generator]:
    """A generator on the CPU for each of some seeds, valid until the next call."""
    while len(_GENERATORS) < len(seeds):
        _GENERATORS.append(torch.Generator())
    return [one.manual_seed(seed) for one, seed in zip(_GENERATORS, seeds.tolist(), strict=False)]


@contextmanager
def dropout_from(sources: Sequence[torch.Generator]) -> Iterator[None]:
    """Inside, dropout on the CPU is drawn for each sample of a batch from its own generator.

    Args:
        sources: a generator for each sample; none for torch's global one.
    """
    token = _SOURCES.set(sources)
    try:
        yield
    finally:
        _SOURCES.reset(token)


class Dropout(nn.Module):
    """Zeroes entries at random in training and scales the others, with 16 random bits per entry.

    Torch's own dropout draws one number per entry, one after another on the CPU, which takes a
    seventh of a training step there.

    Args:
        probability: of a zero, at least 0 and less than 1; rounded to a multiple of ``1 / 65536``.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.zeros = round(probability * 65536)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in evaluation; in training, a tensor like it with zeros."""
        if not (self.training and self.zeros):
            return x
        if torch.compiler.is_compiling() or x.device.type != "cpu":  # where torch's own is fast
            return nn.functional.dropout(x, self.zeros / 65536)
        kept = _random_int16(x) >= self.zeros - 32768
        return x * kept.to(x.dtype).mul_(65536 / (65536 - self.zeros))


def _random_int16(like: Tensor) -> Tensor:
    """Uniform int16 numbers with shape and strides of a tensor, drawn four at a time.

    Those of each sample come from its own generator, if there are any.
    """
    sources = _SOURCES.get()
    parts: Sequence[torch.Generator | None] = sources or [None]
    size = like.numel() // len(parts)
    bits = torch.empty(len(parts), -(-size // 4), dtype=torch.int64)
    for row, source in zip(bits, parts, strict=True):
        row.random_(-(2**63), None, generator=source)
    strides = torch.empty_like(like).stride()
    if sources:
        assert len(sources) == len(like)
        strides = (4 * bits.shape[1], *strides[1:])
    return bits.view(torch.int16).as_strided(like.shape, strides)
