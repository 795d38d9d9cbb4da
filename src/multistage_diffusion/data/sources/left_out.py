"""Files and images of a source that are not used, by reason: each is counted and named."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = [
    "FOREIGN",
    "LINKS",
    "NO_IMAGE",
    "REPEATED",
    "UNREADABLE",
    "LeftOut",
    "about_empty",
    "left_out_notes",
    "named",
]

NO_IMAGE = "no images"
UNREADABLE = "images of formats that Pillow does not open; convert them"
FOREIGN = "hidden or made by other programs (thumbnails, caches)"
LINKS = "links inside the archive"
REPEATED = "named like a later file of the archive"
NAMED = 3


@dataclass(frozen=True)
class LeftOut:
    """Files or images that are not used for one reason."""

    reason: str
    """Why, after the words "N files,"."""
    names: tuple[str, ...]
    """Their paths inside the source, or what messages call them."""


def left_out_notes(left_out: Iterable[LeftOut]) -> tuple[str, ...]:
    """A sentence for each reason, without a full stop."""
    return tuple(_note(entry) for entry in left_out if entry.names)


def about_empty(folders: Sequence[str]) -> tuple[str, ...]:
    """A note about folders without files, in which classes may have been expected."""
    return (f"folders without files: {named(folders)}",) if folders else ()


def _note(entry: LeftOut) -> str:
    suffixes = f" ({_by_suffix(entry.names)})" if entry.reason in (NO_IMAGE, UNREADABLE) else ""
    count = _files(len(entry.names))
    return f"left out {count}, {entry.reason}{suffixes}: {named(entry.names)}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def named(names: Sequence[str], most: int = NAMED) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _by_suffix(names: Sequence[str]) -> str:
    counts = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in names)
    return ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common())
