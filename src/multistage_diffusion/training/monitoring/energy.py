"""Energy, on machines that report it: RAPL for processors, NVML for NVIDIA GPUs."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counter", "EnergyMeter", "gpu_counters", "processor_counters"]

POWERCAP = Path("/sys/class/powercap")
PACKAGE = re.compile(r"intel-rapl:\d+")  # deeper zones are parts of these


@dataclass
class Counter:
    """A counter of energy that begins again at 0 after ``range`` joules."""

    read: Callable[[], float]
    """Joules since an unknown time."""
    range: float = float("inf")
    last: float | None = None

    def passed(self) -> float:
        """Joules since the last call; 0 at the first one."""
        now = self.read()
        before = now if self.last is None else self.last
        self.last = now
        return now - before if now >= before else now - before + self.range


class EnergyMeter:
    """Joules of processor packages and GPUs.

    Args:
        counters: what is added up. Default: all that can be read.
    """

    def __init__(self, counters: list[Counter] | None = None) -> None:
        found = [*processor_counters(), *gpu_counters()] if counters is None else counters
        self.counters = found
        self.passed()

    def passed(self) -> float:
        """Joules since the last call; 0 if the machine does not report energy."""
        return sum(counter.passed() for counter in self.counters)


def processor_counters(folder: Path = POWERCAP) -> list[Counter]:
    """A counter for each processor package that may be read (often root only)."""
    zones = (zone for zone in folder.glob("intel-rapl:*") if PACKAGE.fullmatch(zone.name))
    found = (_package(zone) for zone in sorted(zones))
    return [counter for counter in found if counter]


def _package(zone: Path) -> Counter | None:
    try:
        if not (zone / "name").read_text().startswith("package"):
            return None  # psys, which contains the packages
        largest = _joules(zone / "max_energy_range_uj")
        _joules(zone / "energy_uj")
    except (OSError, ValueError):
        return None
    return Counter(lambda: _joules(zone / "energy_uj"), largest)


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def gpu_counters() -> list[Counter]:
    """A counter for each NVIDIA GPU of the machine; none without the package ``pynvml``."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(pynvml.nvmlDeviceGetCount())]
        counters = [_gpu(handle) for handle in handles]
        for counter in counters:
            counter.read()
    except pynvml.NVMLError:
        return []  # no driver, or a GPU older than Volta, which does not count
    return counters


def _gpu(handle: object) -> Counter:
    import pynvml

    return Counter(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
