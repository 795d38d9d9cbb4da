"""The images of a data set before they are decoded."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PIL import Image

__all__ = ["Entry", "Label", "Listing"]

Label = int | str | None


@dataclass(frozen=True)
class Entry:
    """An image that can be opened."""

    name: str
    """Its path inside the data set, parts separated by ``/``: what a file of labels calls it."""
    where: str
    """How messages call it."""
    open: Callable[[], Image.Image]
    """Opens it, once, before the next entry is asked for."""
    label: Label = None
    """Number or name of its class, if the source says."""


@dataclass(frozen=True)
class Listing:
    """The images of a source, opened one after the other."""

    entries: Iterable[Entry]
    """Can be gone through once."""
    source: str
    """Where the images come from."""
    count: int = 0
    """How many there are; 0 if that is not known beforehand."""
    classes: tuple[str, ...] = ()
    """Names of the classes that labels are numbers of."""
    by_name: bool = False
    """Whether the images are to be ordered by name, since the order of the source means nothing."""
    notes: tuple[str, ...] = ()
    """What a person should know about the source, in words."""
