"""Inception-v3: its features are those of FID, its class probabilities those of Inception Score.

Its weights are not part of any package: they are given as a file, either NVIDIA's TorchScript
``inception-2015-12-05.pt`` or torch-fidelity's ``pt_inception-2015-12-05-6726825d.pth``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.extractor import Extractor
from multistage_diffusion.evaluation.features.file import load_torchscript
from multistage_diffusion.files import fingerprint

__all__ = ["Inception", "load_inception"]

BATCH = 32


@dataclass(frozen=True)
class Inception:
    """Two extractors that share a network."""

    features: Extractor
    """The 2048 pooled features."""
    probabilities: Extractor
    """The probabilities of the classes."""


def load_inception(path: Path) -> Inception:
    """Inception-v3 from a weights file.

    Raises:
        BadInput: if the file is missing or neither of the two that are known.
    """
    if not path.is_file():
        raise BadInput(
            f"There is no file {path}: give the path of Inception's weights, such as NVIDIA's "
            "inception-2015-12-05.pt."
        )
    pooled, probabilities = _functions(path)
    identity = fingerprint(path)
    return Inception(
        Extractor("inception", pooled, BATCH, identity),
        Extractor("inception-classes", probabilities, BATCH, identity),
    )


def _functions(path: Path) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if path.suffix == ".pth":
        return _torch_fidelity(path)
    module = load_torchscript(path)
    return partial(_pooled, module), partial(_probabilities, module)


def _pooled(module: torch.jit.ScriptModule, images: Tensor) -> Tensor:
    features: Tensor = module(images.expand(-1, 3, -1, -1), return_features=True)
    return features


def _probabilities(module: torch.jit.ScriptModule, images: Tensor) -> Tensor:
    """The release's own softmax has no bias, as in the original Inception Score."""
    classes: Tensor = module(images.expand(-1, 3, -1, -1), no_output_bias=True)
    return classes


def _torch_fidelity(path: Path) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise BadInput(
            f"{path} holds torch-fidelity's weights: pip install torch-fidelity, or give "
            "NVIDIA's TorchScript file inception-2015-12-05.pt."
        ) from error
    layers = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3(
        "inception", layers, feature_extractor_weights_path=str(path)
    ).eval()

    def pooled(images: Tensor) -> Tensor:
        features: Tensor = network(images.expand(-1, 3, -1, -1))[0]
        return features

    def probabilities(images: Tensor) -> Tensor:
        logits: Tensor = network(images.expand(-1, 3, -1, -1))[1]
        return logits.softmax(1)

    return pooled, probabilities
