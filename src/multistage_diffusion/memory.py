"""How much memory there is, asked before more is allocated."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from multistage_diffusion.errors import BadInput

__all__ = ["check_memory", "free_memory"]

CGROUPS = Path("/sys/fs/cgroup")
GIB = 2**30


def free_memory(device: torch.device | str = "cpu") -> float:
    """Bytes that can still be allocated on a device, as far as the system tells."""
    device = torch.device(device)
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_limits())


def _limits() -> Iterator[float]:
    most, used = (_number(CGROUPS / name) for name in ("memory.max", "memory.current"))
    yield most - used if most is not None and used is not None else math.inf
    try:
        import psutil

        yield float(psutil.virtual_memory().available)
        import resource  # Windows has none
    except ImportError:
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        yield most - psutil.Process().memory_info().vms


def _number(file: Path) -> int | None:
    """The number in a file of the system; None if there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def check_memory(
    needed: float, purpose: str, advice: str, device: torch.device | str = "cpu"
) -> None:
    """Raises BadInput, with both numbers, if more bytes are needed than are free.

    Args:
        needed: bytes.
        purpose: what they are for, at the beginning of a sentence.
        advice: what to do about it.
        device: where they are needed.
    """
    if device == "meta" or torch.device(device).type == "meta":
        return
    free = free_memory(device)
    if needed > free:
        raise BadInput(
            f"{purpose} needs about {_shown(needed)} of memory, and {_shown(free)} are free: "
            f"{advice}."
        )


def _shown(size: float) -> str:
    return f"{max(size, 0) / GIB:,.1f} GiB" if size < 1e6 * GIB else f"{size / GIB:.1e} GiB"
