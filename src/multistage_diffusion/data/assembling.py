"""From opened images to a data set: decoded, brought to one size and stacked as they come."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.data.decoding import Pixels, Undecodable, decode
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import numbered, read_labels
from multistage_diffusion.data.listing import Entry, Label, Listing
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.errors import BadInput

__all__ = ["Stack", "assemble"]

FIRST_ROWS = 256


def assemble(listing: Listing, options: ReadOptions) -> Images:
    """Decodes and stacks the images of a source.

    Raises:
        BadInput: if images are broken and not to be skipped, sizes differ and none is asked for, or labels are missing.
    """
    reading = _Reading(options)
    stack, kept = Stack(listing.count), list[Entry]()
    for entry, pixels in reading.images(listing):
        stack.add(entry.where, pixels)
        kept.append(entry)
    reading.check(listing.source)
    labels, classes = numbered(_labels(kept, options), [entry.where for entry in kept], listing.classes)
    order = _by_name(kept) if listing.by_name else None
    notes = (*listing.notes, *reading.notes(), *stack.notes())
    images = Images(stack.pixels(), labels, classes if labels is not None else (), listing.source, notes, tuple(reading.broken))
    return images if order is None else images.at(order)


@dataclass
class _Reading:
    """Goes through images and remembers which were broken and what was done to others."""

    options: ReadOptions
    broken: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    count: int = 0

    def images(self, listing: Listing) -> Iterator[tuple[Entry, Pixels]]:
        """The images that can be decoded, brought to size."""
        for entry in listing.entries:
            self.count += 1
            try:
                pixels, done = decode(entry.open)
            except Undecodable as error:
                self.broken.append(f"{entry.where}: {error}")
                continue
            self.done[done] += 1
            size = self.options.height_and_width
            yield entry, pixels if size is None else fitted(pixels, size, self.options.fit)

    def check(self, source: str) -> None:
        """Raises an error about what is broken, if that is not to be skipped."""
        if self.broken and not self.options.skip_broken:
            others = f", the first of {len(self.broken)} that are broken" if len(self.broken) > 1 else ""
            raise BadInput(
                f"Cannot decode the image {self.broken[0]}{others}, of {self.count}; mend or remove it, or give --skip-broken."
            )
        if self.broken and len(self.broken) == self.count:
            raise BadInput(f"All {self.count} images of {source} are broken; the first is {self.broken[0]}.")

    def notes(self) -> list[str]:
        """What was done to how many images."""
        return [f"{count} of {self.count} images {done}" for done, count in self.done.items() if done]


def _labels(kept: list[Entry], options: ReadOptions) -> list[Label]:
    if options.labels is None:
        return [entry.label for entry in kept]
    given = read_labels(options.labels)
    missing = [entry.name for entry in kept if entry.name not in given]
    if missing:
        raise BadInput(
            f"{options.labels} has no label for {missing[0]}, nor for {len(missing) - 1} others of {len(kept)} images; "
            "files are named as they lie in the data, like a/b.png."
        )
    return [given[entry.name] for entry in kept]


def _by_name(kept: list[Entry]) -> Tensor | None:
    """The order of the names, or None where it is that already."""
    order = sorted(range(len(kept)), key=lambda row: PurePosixPath(kept[row].name).parts)
    return None if order == list(range(len(kept))) else torch.tensor(order)


class Stack:
    """Images of one size as one array that grows. Grey ones become colour once a colour image comes.

    Args:
        rows: how many images are expected; 0 if that is not known.
    """

    def __init__(self, rows: int = 0) -> None:
        self.rows = np.empty((rows or FIRST_ROWS, 0, 0, 0), np.uint8)
        self.first = ""
        self.grey = 0
        self.count = 0

    def add(self, where: str, pixels: Pixels) -> None:
        """Adds an image, ``[H, W, C]``.

        Raises:
            BadInput: if it has another size than the first.
        """
        height, width, channels = pixels.shape
        if self.count == 0:
            self.rows, self.first = np.empty((len(self.rows), channels, height, width), np.uint8), where
        self._check(where, height, width)
        if channels > self.rows.shape[1]:
            self.rows = np.repeat(self.rows, channels, axis=1)
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[self.count] = pixels.transpose(2, 0, 1)
        self.grey += channels == 1
        self.count += 1

    def _check(self, where: str, height: int, width: int) -> None:
        if (height, width) != self.rows.shape[2:]:
            first = "x".join(map(str, self.rows.shape[2:]))
            raise BadInput(
                f"{where} is {height}x{width} (height x width), but {self.first} is {first}: give --size H W to make all images "
                "equal, and --fit center-crop, resize or pad for the way to do it."
            )

    def pixels(self) -> Tensor:
        """All images, uint8 ``[N, C, H, W]``."""
        return torch.from_numpy(self.rows[: self.count])

    def notes(self) -> list[str]:
        """What was done to grey images, in words."""
        mixed = 0 < self.grey < self.count and self.rows.shape[1] == 3
        return [f"{self.grey} of {self.count} images were grey and became RGB, as the others are"] if mixed else []
