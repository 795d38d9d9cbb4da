"""Building blocks of the DDPM++ U-Net as EDM uses it (Karras et al. 2022, table 7; Song et al. 2021, appendix H)."""

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "Embedding", "Resample", "ResidualBlock", "group_norm"]

Resample = Literal["none", "down", "up"]


def group_norm(channels: int, most: int) -> nn.GroupNorm:
    """Group normalisation with the most groups that divide ``channels``, up to ``most``, of 4 channels or more if possible."""
    limit = max(1, min(most, channels // 4))
    groups = next(g for g in range(limit, 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def _init(layer: Layer, gain: float = 1.0) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv(inputs: int, outputs: int, kernel: int, gain: float = 1.0) -> nn.Module:
    """A convolution that keeps the size, Xavier uniform with the given gain."""
    return _init(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), gain)


def resample(x: Tensor, how: Resample) -> Tensor:
    """Halves (mean of 2x2) or doubles (nearest neighbour) height and width."""
    if how == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if how == "up" else x


class Attention(nn.Module):
    """Self-attention over the positions of ``[B, C, H, W]`` with one head; a residual branch without its skip."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.qkv = conv(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.proj = conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, 1, c, 3, h * w).transpose(2, 4).unbind(3)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(2, 3).reshape(b, c, h, w))


class ResidualBlock(nn.Module):
    """Two convolutions around an added embedding, a skip, and self-attention if asked for.

    Both residual sums are scaled by ``sqrt(1/2)`` to keep the variance.

    Args:
        inputs, outputs: channels.
        embedding: channels of the embedding of noise level and label.
        how: resampling inside the first convolution and the skip.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        groups: int,
        dropout: float,
        attention: bool = False,
        how: Resample = "none",
    ) -> None:
        super().__init__()
        self.how = how
        self.norm0 = group_norm(inputs, groups)
        self.conv0 = conv(inputs, outputs, 3)
        self.affine = _init(nn.Linear(embedding, outputs))
        self.norm1 = group_norm(outputs, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = conv(outputs, outputs, 3, gain=1e-5)
        self.skip = conv(inputs, outputs, 1) if inputs != outputs or how != "none" else nn.Identity()
        self.attention = Attention(outputs, groups) if attention else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``x`` is ``[B, inputs, H, W]``, ``emb`` ``[B, embedding]``; returns ``[B, outputs, H', W']``."""
        h = self.conv0(resample(F.silu(self.norm0(x)), self.how))
        h = self.norm1(h + self.affine(emb)[:, :, None, None])
        h = self.conv1(self.dropout(F.silu(h)))
        h = (h + self.skip(resample(x, self.how))) * math.sqrt(0.5)
        return h if self.attention is None else (h + self.attention(h)) * math.sqrt(0.5)


class Embedding(nn.Module):
    """Embeds the noise label (sines and cosines) and, where there are classes, the class label.

    Args:
        channels: number of sines and cosines; the output has four times as many.
        classes: number of classes, 0 for none.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        half = (channels + 1) // 2
        self.frequencies: Tensor
        self.register_buffer("frequencies", (1 / 10000) ** (torch.arange(half) / max(half - 1, 1)), persistent=False)
        self.channels = channels
        self.classes = classes
        self.label = _init(nn.Linear(classes, channels, bias=False)) if classes else None
        self.layer0 = _init(nn.Linear(channels, 4 * channels))
        self.layer1 = _init(nn.Linear(4 * channels, 4 * channels))

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """``c_noise`` and ``labels`` are ``[B]``; returns ``[B, 4 * channels]``."""
        angles = torch.outer(c_noise, self.frequencies)
        emb = torch.cat([angles.sin(), angles.cos()], dim=1)[:, : self.channels]  # an odd width lacks the last cosine
        if self.label is not None:
            assert labels is not None, "a class-conditional network needs labels"
            emb = emb + self.label(F.one_hot(labels, self.classes).to(emb.dtype) * math.sqrt(self.classes))
        return F.silu(self.layer1(F.silu(self.layer0(emb))))
