"""The machine that a benchmark runs on, and how long work takes on it."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["DEVICE", "device_name", "median_seconds", "seconds_of", "synchronize"]

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
