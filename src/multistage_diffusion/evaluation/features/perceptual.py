"""A perceptual distance from the feature maps of EfficientNet-Lite0, with gradients.

As LPIPS without its learned weights: maps of several layers are normalised over their channels and
their squared differences averaged (Zhang et al. 2018).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from multistage_diffusion.evaluation.features.efficientnet import load_network

__all__ = ["perceptual_distance"]

BLOCKS = (0, 2, 4, 10)  # of 16; the last ones at 1/2, 1/4, 1/8 and 1/16 of the resolution
LEAST_SIDE = 64


def perceptual_distance(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A distance of two batches of images, -1 to 1, ``[B, C, H, W]``, as a scalar.

    Args:
        device: where they are.
    """
    network = load_network().to(device).requires_grad_(False)

    def distance(made: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = _maps(network, real)
        pairs = zip(_maps(network, made), wanted, strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).mean()

    return distance


def _maps(network: Any, images: Tensor) -> list[Tensor]:
    """Normalised feature maps of some blocks; small images are enlarged."""
    x = images.expand(-1, 3, -1, -1)
    side = min(x.shape[2:])
    if side < LEAST_SIDE:
        x = F.interpolate(x, scale_factor=LEAST_SIDE / side, mode="bilinear", align_corners=False)
    x = network._swish(network._bn0(network._conv_stem(x)))
    found = []
    for number, block in enumerate(network._blocks[: max(BLOCKS) + 1]):
        x = block(x)
        if number in BLOCKS:
            found.append(F.normalize(x, dim=1))
    return found
