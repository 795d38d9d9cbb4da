"""Pyramids of NCSN++.

The image enters every level of the encoder (input pyramid), or the output grows through every level
of the decoder (output pyramid). Sources: Song et al. 2021, appendix H; Karras et al. 2020,
"StyleGAN2", figure 7.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.blocks import PyramidConv, Resampling, residual_scale
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import conv, group_norm

__all__ = ["InputStep", "output_steps"]


class InputStep(nn.Module):
    """Joins the input pyramid with the features after a down-sampling.

    Args:
        inputs: channels of the pyramid.
        channels: channels of the features.
        config: the style; ``input_pyramid`` is ``skip`` or ``residual``.
    """

    def __init__(self, inputs: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.residual = config.input_pyramid == "residual"
        self.scale = residual_scale(config)
        self.down: PyramidConv | Resampling
        self.join: nn.Module
        if self.residual:
            self.down = PyramidConv(inputs, channels, "down", config.resample_filter)
            self.join = nn.Identity()
        else:
            self.down = Resampling("down", config.resample_filter)
            self.join = conv(inputs, channels, 1)

    def forward(self, h: Tensor, pyramid: Tensor) -> tuple[Tensor, Tensor]:
        """Features and pyramid after the step; the pyramid has the size above that of ``h``."""
        smaller = self.down(pyramid)
        if not self.residual:
            return h + self.join(smaller), smaller
        joined = (h + smaller) * self.scale
        return joined, joined


def output_steps(
    image_channels: int, channels: Sequence[int], config: NetworkConfig
) -> nn.ModuleList:
    """The steps of an output pyramid, lowest resolution first; none without one.

    Args:
        image_channels: channels of the image.
        channels: channels of the decoder's levels, highest resolution first.
        config: the style.
    """
    upward = list(reversed(channels))
    if config.output_pyramid == "skip":
        own = [*upward[:-1], 0]  # the decoder itself makes the image of the last level
        return nn.ModuleList(
            SkipStep(image_channels, width, level, config) for level, width in enumerate(own)
        )
    if config.output_pyramid == "residual":
        below = [0, *upward[:-1]]
        pairs = zip(below, upward, strict=True)
        return nn.ModuleList(ResidualStep(lower, width, config) for lower, width in pairs)
    return nn.ModuleList()


class SkipStep(nn.Module):
    """Adds the image of a level to the image from below.

    Args:
        image_channels: channels of the image.
        channels: channels of the features; 0 where the decoder itself makes the image.
        level: the level, from 0 at the lowest resolution.
        config: the style.
    """

    def __init__(
        self, image_channels: int, channels: int, level: int, config: NetworkConfig
    ) -> None:
        super().__init__()
        self.up = Resampling("up" if level else "none", config.resample_filter)
        self.norm = group_norm(channels, config) if channels else None
        self.out = conv(channels, image_channels, 3, gain=1e-5) if channels else None

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The features as they are, and the image so far at their size."""
        below = None if pyramid is None else self.up(pyramid)
        if self.norm is None or self.out is None:
            return h, below
        image = self.out(F.silu(self.norm(h)))
        return h, image if below is None else image + below


class ResidualStep(nn.Module):
    """Joins the features with a pyramid of features; the lowest level begins the pyramid.

    Args:
        below: channels of the pyramid; 0 at the lowest level.
        channels: channels of the features.
        config: the style.
    """

    def __init__(self, below: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.scale = residual_scale(config)
        self.norm: nn.Module
        self.up: nn.Module
        if below:
            self.norm = nn.Identity()
            self.up = PyramidConv(below, channels, "up", config.resample_filter)
        else:
            self.norm = group_norm(channels, config)
            self.up = conv(channels, channels, 3)

    def forward(self, h: Tensor, pyramid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features and pyramid after the step."""
        if pyramid is None:
            return h, self.up(F.silu(self.norm(h)))
        joined = (h + self.up(pyramid)) * self.scale
        return joined, joined
