"""The machine that a benchmark runs on, and how long work takes on it."""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch

from multistage_diffusion.training.monitoring.memory import peak_memory

__all__ = [
    "DEVICE",
    "convolution_rate",
    "device_name",
    "median_seconds",
    "peak_bytes",
    "seconds_of",
    "synchronize",
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The GPU if there is one."""


def device_name() -> str:
    """The name of the GPU, or of the CPU with the number of threads that torch uses."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def synchronize() -> None:
    """Waits until the GPU, if there is one, has done its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds until ``work`` is done, also on the GPU."""
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of ``repeats`` calls of ``work``, after one that is not counted."""
    seconds_of(work)
    return statistics.median(seconds_of(work) for _ in range(repeats))


def convolution_rate(repeats: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Multiply-accumulates a second of the fastest 3x3 convolution of 256 channels at 32x32."""
    formats = (torch.contiguous_format, torch.channels_last)
    return max(
        batch * 32 * 32 * 256 * 256 * 9 / _convolution_seconds(batch, layout, repeats, dtype)
        for batch, layout in product((8, 32, 128), formats)
    )


def _convolution_seconds(
    batch: int, layout: torch.memory_format, repeats: int, dtype: torch.dtype
) -> float:
    x = torch.randn(batch, 256, 32, 32, device=DEVICE, dtype=dtype).to(memory_format=layout)
    w = torch.randn(256, 256, 3, 3, device=DEVICE, dtype=dtype).to(memory_format=layout)
    return median_seconds(lambda: torch.conv2d(x, w, padding=1), 2 * repeats)


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes that ``work`` needs at most, on a CPU beyond those resident before; Linux or CUDA."""
    before = 0 if DEVICE.type == "cuda" else _resident()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    seconds_of(work)
    return peak_memory(DEVICE) - before


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
