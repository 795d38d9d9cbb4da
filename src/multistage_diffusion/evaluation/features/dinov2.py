"""DINOv2 (Oquab et al. 2023), through transformers."""

from functools import partial

import torch
from torch import Tensor

from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.extractor import Extractor, resized

__all__ = ["DINOV2", "dinov2"]

DINOV2 = "facebook/dinov2-base"
SIDE = 224
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def dinov2(source: str = DINOV2) -> Extractor:
    """The class token of a DINOv2 network at 224x224 (Stein et al. 2023 propose it for FD).

    Args:
        source: a hub id, or a folder with the network in transformers' form.

    Raises:
        BadInput: if transformers is not installed, or the network cannot be loaded.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise BadInput("The extractor dinov2 needs transformers: pip install transformers.") from (
            error
        )
    try:
        network = AutoModel.from_pretrained(source).eval()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"The DINOv2 network {source} cannot be loaded: {reason}") from error
    network.to(default_device())
    return Extractor("dinov2", partial(_class_token, network), 32, identity=source)


def _class_token(network: torch.nn.Module, images: Tensor) -> Tensor:
    mean, deviation = (images.new_tensor(v, dtype=torch.float) for v in (MEAN, DEVIATION))
    shaped = resized(images, SIDE) / 255
    normal = (shaped - mean[:, None, None]) / deviation[:, None, None]
    token: Tensor = network(normal).last_hidden_state[:, 0]
    return token
