"""Layers with the initialisation and normalisation that all networks share."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from multistage_diffusion.networks.config import NetworkConfig

__all__ = ["Dropout", "conv", "dropout_from", "generators", "group_norm", "linear"]

_GENERATORS: list[torch.Generator] = []  # reused, since making one takes longer than seeding it

VECTOR_CHANNELS = 16  # bf16 channels that torch's CPU kernel of a group normalisation reads at once

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class _InFormat(torch.autograd.Function):
    """A copy in one memory format, whose gradient is copied to another one."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, here: torch.memory_format, before: torch.memory_format
    ) -> Tensor:
        ctx.before = before
        return x.contiguous(memory_format=here)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].contiguous(memory_format=ctx.before), None, None


class GroupNorm(nn.GroupNorm):
    """Torch's group normalisation, in the dtype of its input with statistics in float32.

    The gradient of the input is always computed on the CPU. It is not needed below a frozen
    encoder, but if it is left out there, that of the weights ends the process for channels-last
    images (torch 2.13).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """``[B, C, H, W]``, normalised."""
        if input.device.type != "cpu" and input.dtype != self.weight.dtype:
            return self.rounded(input)
        if self._is_slow(input):
            return self.contiguous(input)
        constant = torch.is_grad_enabled() and not input.requires_grad
        if constant and input.device.type == "cpu" and not torch.compiler.is_compiling():
            return super().forward(input.detach().requires_grad_())
        return super().forward(input)

    def _is_slow(self, x: Tensor) -> bool:
        """Whether torch's kernel for an image takes up to ten times as long as another one."""
        narrow = self.num_channels // self.num_groups < VECTOR_CHANNELS
        on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
        return narrow and on_cpu and x.dtype == torch.bfloat16 and not x.is_contiguous()

    def contiguous(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` in channels-last format, normalised in the contiguous one.

        The copies take less time than narrow groups of channels-last images in bf16 do.
        """
        here, there = torch.contiguous_format, torch.channels_last
        normalised = super().forward(_InFormat.apply(x, here, there))
        return _InFormat.apply(normalised, there, here)

    def rounded(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]``, normalised with weights in the dtype of ``x``.

        Torch's kernels for the CPU take bf16 images and float32 weights. Those for CUDA do not,
        and its autocast makes the images float32, which doubles what is kept for the backward pass.
        """
        weights = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.group_norm(x, self.num_groups, *weights, self.eps)


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


def conv(
    inputs: int,
    outputs: int,
    kernel: int,
    gain: float = 1.0,
    stride: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    """A convolution, Xavier uniform with the given gain. By default it keeps the size."""
    pad = kernel // 2 if padding is None else padding
    return _init(nn.Conv2d(inputs, outputs, kernel, stride, pad), gain)


def linear(inputs: int, outputs: int, gain: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer, Xavier uniform with the given gain."""
    return _init(nn.Linear(inputs, outputs, bias=bias), gain)


def generators(seeds: Tensor) -> list[torch.Generator]:
    """A generator on the CPU for each of some seeds, valid until the next call."""
    while len(_GENERATORS) < len(seeds):
        _GENERATORS.append(torch.Generator())
    return [one.manual_seed(seed) for one, seed in zip(_GENERATORS, seeds.tolist(), strict=False)]


class Bits:
    """Random bits for the samples of a batch, each from its own generator.

    They are drawn for several layers at a time, since a call for each takes longer than the bits of
    a small one.
    """

    WORDS = 2048  # at least, at a time

    def __init__(self, sources: Sequence[torch.Generator]) -> None:
        self.sources = sources
        self.words = torch.empty(len(sources), 0, dtype=torch.int64)

    def draw(self, count: int) -> Tensor:
        """The next words of each sample, int64 ``[samples, count]``."""
        if self.words.shape[1] < count:
            size = max(count, self.WORDS)
            self.words = torch.empty(len(self.sources), size, dtype=torch.int64)
            for row, source in zip(self.words, self.sources, strict=True):
                row.random_(-(2**63), None, generator=source)
        drawn, self.words = self.words.tensor_split([count], dim=1)
        return drawn


_BITS: ContextVar[Bits | None] = ContextVar("bits of dropout", default=None)


def dropout_from(sources: Sequence[torch.Generator]) -> AbstractContextManager[None]:
    """Inside, dropout on the CPU is drawn for each sample of a batch from its own generator.

    Args:
        sources: a generator for each sample; none for torch's global one.
    """
    return _drawn_from(Bits(sources)) if sources else nullcontext()


@contextmanager
def _drawn_from(bits: Bits) -> Iterator[None]:
    token = _BITS.set(bits)
    try:
        yield
    finally:
        _BITS.reset(token)


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
    """Uniform int16 numbers with the shape of a tensor ``[B, C, H, W]``.

    Those of each sample come from its own generator, if there are any, and do not depend on the
    memory format.
    """
    bits = _BITS.get()
    count, channels, height, width = like.shape
    if bits is None:
        drawn = torch.empty(1, -(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    else:
        drawn = bits.draw(-(-channels * height * width // 4))
    size = like.numel() // len(drawn)
    numbers = drawn.view(torch.int16)[:, :size].reshape(count, height, width, channels)
    ordered = numbers.permute(0, 3, 1, 2)
    return ordered.contiguous() if like.is_contiguous() else ordered
