"""The images of a data set before they are decoded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

__all__ = ["Entry", "Label", "Listing", "stamps"]

Label = int | str | None


@dataclass(frozen=True)
class Entry:
    """An image that can be opened."""

    name: str
    """Its path inside the data set, parts separated by ``/``: what a file of labels calls it."""
    where: str
    """How messages call it."""
    open: Callable[[], Image.Image]
    """Opens it, once, in any thread."""
    label: Label = None
    """Number or name of its class, if the source says."""


@dataclass(frozen=True)
class Listing:
    """The images of a source."""

    entries: Callable[[], Iterable[Entry]]
    """Goes through them from the first on, without opening them."""
    source: str
    """Where the images come from."""
    count: Callable[[], int]
    """Counts them."""
    identity: Callable[[], object]
    """What changes when the source does, found without reading images, for JSON."""
    classes: tuple[str, ...] = ()
    """Names of the classes that labels are numbers of."""
    by_name: bool = False
    """Whether the images are to be ordered by name, since the order of the source means nothing."""
    notes: tuple[str, ...] = ()
    """What a person should know about the source, in words."""


def stamps(files: Iterable[Path]) -> list[list[str | int]]:
    """Path, size and time of the last change of each file, by which a change shows."""
    found = ((str(file.absolute()), file.stat()) for file in files)
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found]
