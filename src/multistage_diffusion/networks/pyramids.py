"""Pyramids of NCSN++: the image enters every level of the encoder, or the output grows through
every level of the decoder (Song et al. 2021, appendix H; Karras et al. 2020, "StyleGAN2", figure
7).
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.blocks import PyramidConv, Resampling
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import conv, group_norm

__all__ = ["InputStep", "output_steps"]


def _scale(config: NetworkConfig) -> float:
    return math.sqrt(0.5) if config.residual_scale else 1.0


class InputStep(nn.Module):
    """Joins the input pyramid with the features after a down-sampling; both go on.

    Args:
        inputs: channels of the pyramid.
        channels: channels of the features.
        config: the style; ``input_pyramid`` is ``skip`` or ``residual``.
    """

    def __init__(self, inputs: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.residual, self.scale, taps = (
            config.input_pyramid == "residual",
            _scale(config),
            config.resample_filter,
        )
        self.down = (
            PyramidConv(inputs, channels, "down", taps)
            if self.residual
            else Resampling("down", taps)
        )
        self.join = nn.Identity() if self.residual else conv(inputs, channels, 1)

    def forward(self, h: Tensor, pyramid: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.down(pyramid)
        if not self.residual:
            return h + self.join(pyramid), pyramid
        joined = (h + pyramid) * self.scale
        return joined, joined


def output_steps(
    image_channels: int, channels: Sequence[int], config: NetworkConfig
) -> nn.ModuleList:
    """The steps of an output pyramid, lowest level first; none without one.

    Args:
        image_channels: channels of the image.
        channels: channels of the decoder's levels, highest resolution first.
        config: the style.
    """
    upward = list(reversed(channels))
    if config.output_pyramid == "skip":
        own = [*upward[:-1], 0]
        return nn.ModuleList(
            SkipStep(image_channels, channels, level, config) for level, channels in enumerate(own)
        )
    if config.output_pyramid == "residual":
        below = [0, *upward[:-1]]
        return nn.ModuleList(
            ResidualStep(b, own, config) for b, own in zip(below, upward, strict=True)
        )
    return nn.ModuleList()


class SkipStep(nn.Module):
    """Adds a level's image to what came from below; the last level's image is the decoder's own."""

    def __init__(
        self, image_channels: int, channels: int, level: int, config: NetworkConfig
    ) -> None:
        super().__init__()
        self.up = Resampling("up" if level else "none", config.resample_filter)
        self.norm = group_norm(channels, config) if channels else None
        self.out = conv(channels, image_channels, 3, gain=1e-5) if channels else None

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        below = None if pyramid is None else self.up(pyramid)
        if self.norm is None or self.out is None:
            return h, below
        image = self.out(F.silu(self.norm(h)))
        return h, image if below is None else image + below


class ResidualStep(nn.Module):
    """Joins the features with a pyramid of features from below; both go on.

    The lowest level begins the pyramid.
    """

    def __init__(self, below: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.scale = _scale(config)
        self.norm = nn.Identity() if below else group_norm(channels, config)
        self.up = (
            PyramidConv(below, channels, "up", config.resample_filter)
            if below
            else conv(channels, channels, 3)
        )

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor]:
        if pyramid is None:
            return h, self.up(F.silu(self.norm(h)))
        joined = (h + self.up(pyramid)) * self.scale
        return joined, joined
