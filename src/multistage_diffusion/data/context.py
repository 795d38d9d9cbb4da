"""Context for cross-attention, for example text embeddings: an array beside the images."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["read_context"]


def read_context(path: Path) -> Tensor:
    """The context of each image, ``[N, tokens, channels]``, floating point; read when needed.

    Raises:
        BadInput: if the file is no such array.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"Cannot read the context {path}: {error}.") from error
    if array.ndim != 3 or array.dtype.kind != "f" or len(array) == 0:
        raise BadInput(
            f"{path} holds {array.dtype}{list(array.shape)}; a context is floating point "
            "[N, tokens, channels], a row for each image."
        )
    return torch.from_numpy(array)
