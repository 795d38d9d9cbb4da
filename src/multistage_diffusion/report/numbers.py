"""Numbers and times formatted for a page."""

import math
from collections.abc import Sequence
from pathlib import Path

__all__ = ["duration", "interval", "short", "short_path"]

PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def short(value: float) -> str:
    """A number of at most four digits: 0.0123, 5, 200 k, 33 T."""
    size = abs(value)
    if size < 1000 or not math.isfinite(value):
        return f"{value:.3g}" if size < 1e-3 and value else f"{round(value, 6):.4g}"
    power = min(int(math.log10(size) + 1e-9) // 3, len(PREFIXES) - 1)
    return f"{value / 1000**power:.4g} {PREFIXES[power]}"


def duration(seconds: float) -> str:
    """A time in its natural unit."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} minutes"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


def short_path(data: str) -> str:
    """The last two parts of an absolute path; other names of data as they are."""
    path = Path(data)
    return "/".join(path.parts[-2:]) if path.is_absolute() else data


def interval(ends: Sequence[float] | None, form: str = ".4g") -> str:
    """Both ends of an interval; nothing where there is none."""
    return f"{ends[0]:{form}} to {ends[1]:{form}}" if ends else ""
