"""Attention over the positions of feature maps, to themselves and to a context."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import conv, group_norm, linear

__all__ = ["Attention", "SpatialTransformer"]


MOST_POSITIONS = 256
"""Attention of more is fused on a CPU too: the matrix of all pairs would be kept."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of ``q``, ``[B, heads, T, C]``, to ``k`` and ``v``, ``[B, heads, S, C]``.

    In bf16 on a CPU, the backward pass of torch's fused kernel takes two to six times as long as
    that of plain products (``benchmarks/train.md``); short sequences are trained with these.
    """
    learns = torch.is_grad_enabled() and q.requires_grad
    short = max(q.shape[2], k.shape[2]) <= MOST_POSITIONS
    if not (learns and short and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return torch.softmax(scores, dim=3) @ v


def _heads(channels: int, config: NetworkConfig) -> int:
    """The number of heads.

    That is ``config.heads``, or as many as divide ``channels`` and leave each head at least
    ``config.head_channels``; one where there are fewer channels, as in narrow decoders.

    Raises:
        BadInput: if ``config.heads`` does not divide ``channels``.
    """
    if config.head_channels:
        most = max(1, channels // config.head_channels)
        return next(heads for heads in range(most, 0, -1) if channels % heads == 0)
    if channels % config.heads:
        raise BadInput(
            f"{channels} channels cannot be divided into {config.heads} attention heads; choose "
            "other --heads, or widths that are multiples of it."
        )
    return config.heads


class Attention(nn.Module):
    """Self-attention over the positions of ``[B, C, H, W]``; a residual branch without its skip.

    The rows of ``qkv`` are ordered by head, channel, and query, key or value. These are copied
    apart, because torch's fused kernels, which keep no matrix of all pairs of positions, take
    tensors without gaps only.
    """

    def __init__(self, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.heads = _heads(channels, config)
        self.norm = group_norm(channels, config)
        self.qkv = conv(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.proj = conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor, _: Tensor | None = None) -> Tensor:
        """``x`` is ``[B, C, H, W]``; a context is not used."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).view(b, self.heads, c // self.heads, 3, h * w)
        q, k, v = (part.contiguous() for part in qkv.transpose(2, 4).unbind(3))
        out = attend(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(b, c, h, w))


class SpatialTransformer(nn.Module):
    """Transformer layers over the positions of ``[B, C, H, W]`` with attention to a context.

    A residual branch without its skip. Without a context, the attention to it is left out.
    Source: Rombach et al. 2022, section 3.3.
    """

    def __init__(self, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = group_norm(channels, config)
        self.norm.eps = 1e-6
        self.proj_in = conv(channels, channels, 1)
        heads = _heads(channels, config)
        self.layers = nn.ModuleList(
            TransformerLayer(channels, heads, config.context_channels)
            for _ in range(config.transformer_depth)
        )
        self.proj = conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``x`` is ``[B, C, H, W]``, ``context`` ``[B, tokens, context_channels]``."""
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, context)
        return self.proj(tokens.transpose(1, 2).reshape(x.shape))


class TransformerLayer(nn.Module):
    """Self-attention, attention to a context, and a gated feed-forward layer.

    Each has a layer normalisation in front and a skip around it.
    """

    def __init__(self, channels: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.self_attention = TokenAttention(channels, channels, heads)
        self.cross_attention = TokenAttention(channels, context_channels, heads)
        self.gate = linear(channels, 8 * channels)
        self.out = linear(4 * channels, channels)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """``x`` is ``[B, T, C]``, ``context`` ``[B, S, context_channels]``."""
        h = self.norm0(x)
        x = x + self.self_attention(h, h)
        if context is not None:
            x = x + self.cross_attention(self.norm1(x), context)
        value, gate = self.gate(self.norm2(x)).chunk(2, dim=-1)
        return x + self.out(value * F.gelu(gate))


class TokenAttention(nn.Module):
    """Attention of the tokens ``[B, T, C]`` to others, ``[B, S, C']``."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = linear(channels, channels, bias=False)
        self.key = linear(context_channels, channels, bias=False)
        self.value = linear(context_channels, channels, bias=False)
        self.out = linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """``x`` is ``[B, T, C]``, ``context`` ``[B, S, C']``; returns ``[B, T, C]``."""
        q = self._split(self.query(x))
        k = self._split(self.key(context))
        v = self._split(self.value(context))
        attended = attend(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(x.shape))

    def _split(self, tokens: Tensor) -> Tensor:
        """``[B, T, C]`` by head: ``[B, heads, T, C / heads]``."""
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)
