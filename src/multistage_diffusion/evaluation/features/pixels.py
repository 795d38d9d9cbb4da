"""Pixel values as features."""

from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.extractor import Extractor

__all__ = ["pixels"]

MOST_PIXEL_DIMENSIONS = 4096


def pixels() -> Extractor:
    """The raw pixel values, 0 to 1. Comparable between sets of one size only."""
    return Extractor("pixels", _pixel_features, 1024)


def _pixel_features(images: Tensor) -> Tensor:
    size = images[0].numel()
    if size > MOST_PIXEL_DIMENSIONS:
        raise BadInput(
            f"The extractor pixels takes up to {MOST_PIXEL_DIMENSIONS} values per image, these "
            f"have {size}; use --extractor efficientnet-lite0."
        )
    return images.flatten(1).float() / 255
