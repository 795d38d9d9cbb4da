"""Building blocks of the U-Nets of three bases, one set for all.

The same modules serve as the DDPM++ and NCSN++ blocks of EDM and DPM-Solver (Karras et al. 2022,
table 7; Song et al. 2021, appendix H), as the ADM block (Dhariwal & Nichol 2021), and as those of
latent diffusion (Rombach et al. 2022); a ``NetworkConfig`` chooses.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.attention import Attention, SpatialTransformer
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import Dropout, conv, group_norm, linear

__all__ = [
    "PyramidConv",
    "Resample",
    "Resampling",
    "ResamplingConv",
    "ResidualBlock",
    "bottom_blocks",
    "resampling_block",
    "residual_scale",
]

Resample = Literal["none", "down", "up"]


class Resampling(nn.Module):
    """Halves or doubles height and width with a separable filter.

    Args:
        how: down or up; ``none`` keeps the size and does not filter.
        taps: the filter in one direction, of even length. ``(1, 1)`` is the mean of 2x2 pixels
            downwards and the nearest neighbour upwards.
    """

    def __init__(self, how: Resample, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.how = how
        self.box = tuple(taps) == (1, 1)
        self.pad = (len(taps) - 1) // 2
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        kernel = torch.outer(line, line)[None, None]
        self.kernel: Tensor
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to half or twice the height and width."""
        if self.how == "none":
            return x
        if self.box and self.how == "down":
            return F.avg_pool2d(x, 2)
        if self.box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return self.down(x, self.pad) if self.how == "down" else self.up(x, self.pad)

    def down(self, x: Tensor, padding: int) -> Tensor:
        """Filters and keeps every second row and column."""
        return F.conv2d(x, self._weight(x), stride=2, padding=padding, groups=x.shape[1])

    def blur(self, x: Tensor, padding: int) -> Tensor:
        """Filters and keeps all rows and columns."""
        return F.conv2d(x, self._weight(x), padding=padding, groups=x.shape[1])

    def up(self, x: Tensor, padding: int) -> Tensor:
        """Puts zeros between rows and columns and filters."""
        weight = 4 * self._weight(x)
        return F.conv_transpose2d(x, weight, stride=2, padding=padding, groups=x.shape[1])

    def _weight(self, x: Tensor) -> Tensor:
        """The filter for each channel separately, ``[C, 1, taps, taps]``."""
        return self.kernel.to(x).expand(x.shape[1], 1, -1, -1)


class PyramidConv(nn.Module):
    """A 3x3 convolution and a filtered resampling with a single padding, between pyramid levels.

    Downwards the filter works at full size, one pixel wider than the image, and the convolution has
    stride 2. Upwards the size is doubled first; the padding of a wide filter serves both.
    """

    def __init__(self, inputs: int, outputs: int, how: Resample, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.resampling = Resampling(how, taps)
        pad = self.resampling.pad
        if how == "down":
            self.conv = conv(inputs, outputs, 3, stride=2, padding=0)
        else:
            self.conv = conv(inputs, outputs, 3, padding=max(1 - pad, 0))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``outputs`` channels, half or twice the height and width."""
        resampling, pad = self.resampling, self.resampling.pad
        if resampling.how == "down":
            return self.conv(resampling.blur(x, pad + 1))
        return self.conv(resampling.up(x, max(pad - 1, 0)))


class ResamplingConv(nn.Module):
    """Latent diffusion's resampling.

    Downwards a convolution of stride 2, upwards the nearest neighbour and a convolution.

    Args:
        channels: of inputs and outputs.
        how: down or up.
        pad_end: pad one row and column at the end instead of at both, downwards.
    """

    def __init__(self, channels: int, how: Resample, pad_end: bool = False) -> None:
        super().__init__()
        self.how = how
        self.pad_end = pad_end
        if how == "down":
            self.conv = conv(channels, channels, 3, stride=2, padding=0 if pad_end else 1)
        else:
            self.conv = conv(channels, channels, 3)

    def forward(self, x: Tensor, _: Tensor, __: Tensor | None = None) -> Tensor:
        """``x`` is ``[B, C, H, W]``; embedding and context are not used."""
        if self.how == "up":
            return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.pad_end else x)


class ResidualBlock(nn.Module):
    """Two convolutions with the embedding between them, a skip, and optionally attention.

    The embedding is added, or shifts and scales the second normalisation (``adaptive_scale``).
    Residual sums are scaled by ``sqrt(1/2)`` to keep the variance, unless ``residual_scale`` is
    off.

    Args:
        inputs, outputs: channels.
        embedding: channels of the embedding of noise level and labels.
        config: the style.
        attention: whether attention follows.
        how: resampling inside the first convolution and the skip.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        config: NetworkConfig,
        attention: bool = False,
        how: Resample = "none",
    ) -> None:
        super().__init__()
        self.how = how
        self.scale = residual_scale(config)
        self.adaptive = config.adaptive_scale
        self.resampling = Resampling(how, config.resample_filter)
        self.norm0 = group_norm(inputs, config)
        self.conv0 = conv(inputs, outputs, 3)
        self.affine = linear(embedding, outputs * (2 if self.adaptive else 1))
        self.norm1 = group_norm(outputs, config)
        self.dropout = Dropout(config.dropout)
        self.conv1 = conv(outputs, outputs, 3, gain=1e-5)
        projected = inputs != outputs or (how != "none" and config.project_resampled)
        self.skip = conv(inputs, outputs, 1) if projected else nn.Identity()
        kind = SpatialTransformer if config.context_channels else Attention
        self.attention = kind(outputs, config) if attention else None

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        """Applies the block.

        Args:
            x: features, ``[B, inputs, H, W]``.
            emb: embedding of noise level and labels, ``[B, embedding]``.
            context: ``[B, tokens, context_channels]``.

        Returns:
            ``[B, outputs, H', W']``, resampled if the block resamples.
        """
        h = self.conv0(self.resampling(F.silu(self.norm0(x))))
        affine = self.affine(emb)[:, :, None, None]
        h = self.conv1(self.dropout(F.silu(self._modulated(h, affine))))
        h = (h + self.skip(self.resampling(x))) * self.scale
        return h if self.attention is None else (h + self.attention(h, context)) * self.scale

    def _modulated(self, h: Tensor, affine: Tensor) -> Tensor:
        """The second normalisation, with the embedding in front of it or as its affine map."""
        if not self.adaptive:
            return self.norm1(h + affine)
        scale, shift = affine.chunk(2, dim=1)
        return torch.addcmul(shift, self.norm1(h), scale + 1)


def residual_scale(config: NetworkConfig) -> float:
    """Factor on the sum of two branches."""
    return math.sqrt(0.5) if config.residual_scale else 1.0


def bottom_blocks(channels: int, embedding: int, config: NetworkConfig) -> nn.ModuleList:
    """The two blocks at the lowest resolution, the first of them with attention if set."""
    return nn.ModuleList(
        ResidualBlock(channels, channels, embedding, config, attention)
        for attention in (config.bottom_attention, False)
    )


def resampling_block(
    channels: int, embedding: int, config: NetworkConfig, how: Resample
) -> ResidualBlock | ResamplingConv:
    """The block between two levels."""
    if config.resampling == "conv":
        return ResamplingConv(channels, how, config.downsampling_padding == "end")
    return ResidualBlock(channels, channels, embedding, config, how=how)
