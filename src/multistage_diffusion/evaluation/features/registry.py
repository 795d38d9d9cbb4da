"""The extractors by name. To add one, write it in a file of this folder and list it here."""

from collections.abc import Callable
from pathlib import Path

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.dinov2 import dinov2
from multistage_diffusion.evaluation.features.efficientnet import (
    efficientnet_lite0,
    efficientnet_lite0_small,
)
from multistage_diffusion.evaluation.features.extractor import Extractor
from multistage_diffusion.evaluation.features.file import extractor_file
from multistage_diffusion.evaluation.features.pixels import pixels

__all__ = ["EXTRACTORS", "find_extractor"]

EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "efficientnet-lite0-112": efficientnet_lite0_small,
    "pixels": pixels,
    "dinov2": dinov2,
}
"""Makers of the extractors by name."""

SUFFIXES = (".pt", ".pth", ".ts", ".torchscript", ".onnx")


def find_extractor(name: str) -> Extractor:
    """The extractor with a name, or the one in a TorchScript or ONNX file or a DINOv2 folder.

    Raises:
        BadInput: if there is none.
    """
    if name in EXTRACTORS:
        return EXTRACTORS[name]()
    if name.lower().endswith(SUFFIXES):
        return extractor_file(Path(name))
    if (Path(name) / "config.json").is_file():
        return dinov2(name)
    known = ", ".join(EXTRACTORS)
    raise BadInput(f"There is no extractor {name}: give {known}, or a TorchScript or ONNX file.")
