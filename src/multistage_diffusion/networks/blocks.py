"""Building blocks of the U-Nets of three bases, one set for all.

The DDPM++ and NCSN++ blocks as EDM and DPM-Solver use them (Karras et al. 2022, table 7; Song et
al. 2021, appendix H), the ADM block (Dhariwal & Nichol 2021), and those of latent diffusion
(Rombach et al. 2022) are settings of the same modules; a ``NetworkConfig`` says which.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.attention import Attention, SpatialTransformer
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import Dropout, conv, group_norm, linear

__all__ = ["PyramidConv", "Resample", "Resampling", "ResamplingConv", "ResidualBlock"]

Resample = Literal["none", "down", "up"]


class Resampling(nn.Module):
    """Halves or doubles height and width with a separable filter; ``(1, 1)`` is the mean of 2x2 and
    the nearest neighbour.
    """

    def __init__(self, how: Resample, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.how, self.box, self.pad = how, tuple(taps) == (1, 1), (len(taps) - 1) // 2
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        self.kernel: Tensor
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "none":
            return x
        if self.box:
            return (
                F.avg_pool2d(x, 2)
                if self.how == "down"
                else F.interpolate(x, scale_factor=2, mode="nearest")
            )
        return self.down(x, self.pad) if self.how == "down" else self.up(x, self.pad)

    def down(self, x: Tensor, padding: int) -> Tensor:
        """Filters and keeps every second row and column."""
        return F.conv2d(x, self._kernel(x), stride=2, padding=padding, groups=x.shape[1])

    def blur(self, x: Tensor, padding: int) -> Tensor:
        """Filters and keeps all."""
        return F.conv2d(x, self._kernel(x), padding=padding, groups=x.shape[1])

    def up(self, x: Tensor, padding: int) -> Tensor:
        """Puts zeros between rows and columns and filters."""
        return F.conv_transpose2d(
            x, 4 * self._kernel(x), stride=2, padding=padding, groups=x.shape[1]
        )

    def _kernel(self, x: Tensor) -> Tensor:
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


class PyramidConv(nn.Module):
    """A 3x3 convolution and a filtered resampling with a single padding, between levels of a
    pyramid.
    """

    def __init__(self, inputs: int, outputs: int, how: Resample, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, 3)
        self.resampling = Resampling(how, taps)

    def forward(self, x: Tensor) -> Tensor:
        filtered, pad, weight = self.resampling, self.resampling.pad, self.conv.weight
        if (
            filtered.how == "down"
        ):  # the filter at full size, with room for the convolution at its edges
            h = F.conv2d(filtered.blur(x, pad + 1), weight, stride=2)
        else:
            h = F.conv2d(filtered.up(x, max(pad - 1, 0)), weight, padding=max(1 - pad, 0))
        assert self.conv.bias is not None
        return h + self.conv.bias[:, None, None]


class ResamplingConv(nn.Module):
    """Latent diffusion's resampling: a convolution of stride 2, or the nearest neighbour and a
    convolution.
    """

    def __init__(self, channels: int, how: Resample) -> None:
        super().__init__()
        self.how = how
        self.conv = conv(channels, channels, 3)

    def forward(self, x: Tensor, _: Tensor, __: Tensor | None = None) -> Tensor:
        if self.how == "up":
            return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return F.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions around an embedding, a skip, and attention if asked for.

    The embedding is added, or shifts and scales the second normalisation (``adaptive_scale``).
    Residual sums are scaled by ``sqrt(1/2)`` to keep the variance, unless ``residual_scale`` is
    off.

    Args:
        inputs, outputs: channels.
        embedding: channels of the embedding of noise level and label.
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
        self.scale = math.sqrt(0.5) if config.residual_scale else 1.0
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
        """``x`` is ``[B, inputs, H, W]``, ``emb`` ``[B, embedding]``, ``context`` ``[B, tokens,
        C]``.
        """
        h = self.conv0(self.resampling(F.silu(self.norm0(x))))
        h = self.conv1(self.dropout(F.silu(self._modulated(h, self.affine(emb)[:, :, None, None]))))
        h = (h + self.skip(self.resampling(x))) * self.scale
        return h if self.attention is None else (h + self.attention(h, context)) * self.scale

    def _modulated(self, h: Tensor, affine: Tensor) -> Tensor:
        if not self.adaptive:
            return self.norm1(h + affine)
        scale, shift = affine.chunk(2, dim=1)
        return torch.addcmul(shift, self.norm1(h), scale + 1)
