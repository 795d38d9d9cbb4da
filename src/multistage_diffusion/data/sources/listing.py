"""The images of a data set before they are decoded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multistage_diffusion.data.sources.left_out import LeftOut

__all__ = ["Entry", "Label", "Listing", "stamps"]

Label = int | str | None


@dataclass(frozen=True)
class Entry:
    """An image that can be opened."""

    name: str
    """Its path inside the data set, parts separated by ``/``: its name in a file of labels."""
    where: str
    """Its name in messages."""
    open: Callable[[], IO[bytes]]
    """Opens its file for reading, in any thread."""
    label: Label = None
    """Number or name of its class, if the source gives it."""
    page: int = 0
    """Which page or frame of the file it is."""


@dataclass(frozen=True)
class Listing:
    """The images of a source."""

    entries: Callable[[], Iterable[Entry]]
    """Iterates over them from the first one, without opening them."""
    source: str
    """Where the images come from."""
    count: Callable[[], int]
    """Counts them."""
    identity: Callable[[], object]
    """A value for JSON that changes when the source does, determined without reading images."""
    classes: tuple[str, ...] = ()
    """Names of the classes that labels are numbers of."""
    by_name: bool = False
    """Whether to sort the images by name, because their order in the source has no meaning."""
    notes: tuple[str, ...] = ()
    """Messages that the user should read about the source, besides those on what is left out."""
    left_out: tuple[LeftOut, ...] = ()
    """Files and images of the source that are not read."""


def stamps(files: Iterable[Path]) -> list[list[str | int]]:
    """Path, size and time of the last change of each file, which differ when a file changes."""
    states = ((str(file.absolute()), file.stat()) for file in files)
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]
