"""Memory in use."""

import resource
import sys

import torch

__all__ = ["memory_in_use"]


def memory_in_use(device: torch.device) -> int:
    """Most bytes so far: allocated on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
