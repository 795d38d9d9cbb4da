"""From opened images to a data set: decoded by all cores, brought to one size and stacked as they
come.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.data.decoding import Pixels, Undecodable, decode
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import numbered, read_labels
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["Found", "Reading", "Stack", "Watch", "assemble", "first_size"]

FIRST_ROWS = 256
Watch = Callable[[Iterator[Pixels], int, int], Iterator[Pixels]]
"""Passes images through and shows how far they have come; it is told how many there are and how
many were read before."""


def assemble(listing: Listing, options: ReadOptions, watch: Watch) -> Images:
    """Decodes and stacks the images of a source.

    Raises:
        BadInput: if images are broken and not to be skipped, sizes differ and none is asked for, or
            labels are missing.
    """
    reading, stack = Reading(listing, options, Found()), Stack(listing.count())
    for pixels in reading.images(watch):
        stack.add(pixels)
    return reading.finished(lambda: torch.from_numpy(stack.pixels()))


def first_size(listing: Listing, options: ReadOptions) -> int:
    """How many bytes the first image that can be decoded has; 0 if there is none."""
    decoded = (_decode(options, entry)[1] for entry in listing.entries())
    return next((pixels.size for pixels in decoded if pixels is not None), 0)


def _decode(options: ReadOptions, entry: Entry) -> tuple[Entry, Pixels | None, str]:
    """An image brought to size, ``[C, H, W]``, and what was done to it, or why there is none."""
    try:
        pixels, done = decode(entry.open)
    except Undecodable as error:
        return entry, None, f"{entry.where}: {error}"
    size = options.height_and_width
    sized = pixels if size is None else fitted(pixels, size, options.fit)
    return entry, np.ascontiguousarray(sized.transpose(2, 0, 1)), done


@dataclass
class Found:
    """What was found in a source as far as it has been gone through."""

    entries: int = 0
    """How many were gone through."""
    broken: dict[int, str] = field(default_factory=dict)
    """Which of them are broken, each with the reason."""
    done: dict[str, int] = field(default_factory=dict)
    """What was done to how many."""
    grey: int = 0
    """How many of the others are grey."""
    first: tuple[str, int, int] | None = None
    """Name, height and width of the first one."""

    def add(self, where: str, pixels: Pixels, done: str) -> None:
        """Counts an image.

        Raises:
            BadInput: if it has another size than the first.
        """
        channels, height, width = pixels.shape
        self.first = self.first or (where, height, width)
        if (height, width) != self.first[1:]:
            raise BadInput(
                f"{where} is {height}x{width} (height x width), but {self.first[0]} is "
                f"{self.first[1]}x{self.first[2]}: give "
                "--size H W to make all images equal, and --fit center-crop, resize or pad for "
                "the way to do it."
            )
        self.entries += 1
        self.grey += channels == 1
        if done:
            self.done[done] = self.done.get(done, 0) + 1

    def add_broken(self, reason: str) -> None:
        """Counts an image that cannot be decoded."""
        self.broken[self.entries] = reason
        self.entries += 1

    def check(self, source: str, skip_broken: bool) -> None:
        """Raises an error about what is broken, if that is not to be skipped."""
        first, count = next(iter(self.broken.values()), ""), len(self.broken)
        if count and not skip_broken:
            others = f", the first of {count} that are broken" if count > 1 else ""
            raise BadInput(
                f"Cannot decode the image {first}{others}, of {self.entries}; mend or remove it, "
                "or give --skip-broken."
            )
        if count and count == self.entries:
            raise BadInput(f"All {count} images of {source} are broken; the first is {first}.")

    def notes(self) -> list[str]:
        """What was done to how many images, in words."""
        kept = self.entries - len(self.broken)
        mixed = (
            [f"{self.grey} of {kept} images were grey and became RGB, as the others are"]
            if 0 < self.grey < kept
            else []
        )
        return [
            f"{count} of {self.entries} images {done}" for done, count in self.done.items()
        ] + mixed


class _Kept(NamedTuple):
    """An image that was decoded, without its content."""

    name: str
    where: str
    label: Label


class Reading:
    """Goes through the images of a source, from where it was left.

    Args:
        listing: the source.
        options: how to read it.
        found: what was found before; its entries are not decoded again.
    """

    def __init__(self, listing: Listing, options: ReadOptions, found: Found) -> None:
        self.listing, self.options, self.found = listing, options, found
        self.kept = list[_Kept]()

    def images(self, watch: Watch) -> Iterator[Pixels]:
        """The images that can be decoded, ``[C, H, W]``, brought to size; ``found`` is up to the
        image that came last.
        """
        return watch(self._decoded(), self.listing.count(), self.found.entries)

    def _decoded(self) -> Iterator[Pixels]:
        for entry, pixels, said in in_order(partial(_decode, self.options), self._new()):
            if pixels is None:
                self.found.add_broken(said)
                continue
            self.found.add(entry.where, pixels, said)
            self._keep(entry)
            yield pixels

    def _new(self) -> Iterator[Entry]:
        """The entries that were not gone through before."""
        before = self.found.entries
        for number, entry in enumerate(self.listing.entries()):
            if number >= before:
                yield entry
            elif number not in self.found.broken:
                self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self.kept.append(_Kept(entry.name, entry.where, entry.label))

    def finished(self, pixels: Callable[[], Tensor | MappedRows]) -> Images:
        """The data set, once all images were gone through; ``pixels`` gives those that were
        decoded, ``[N, C, H, W]``.

        Raises:
            BadInput: if images are broken and not to be skipped, or labels are missing.
        """
        listing, found, kept = self.listing, self.found, self.kept
        found.check(listing.source, self.options.skip_broken)
        labels, classes = numbered(
            _labels(kept, self.options), [image.where for image in kept], listing.classes
        )
        notes, skipped = (*listing.notes, *found.notes()), tuple(found.broken.values())
        images = Images(
            pixels(), labels, classes if labels is not None else (), listing.source, notes, skipped
        )
        order = _by_name(kept) if listing.by_name else None
        return images if order is None else images.at(order)


def _labels(kept: list[_Kept], options: ReadOptions) -> list[Label]:
    if options.labels is None:
        return [image.label for image in kept]
    given = read_labels(options.labels)
    missing = [image.name for image in kept if image.name not in given]
    if missing:
        raise BadInput(
            f"{options.labels} has no label for {missing[0]}, nor for {len(missing) - 1} others "
            f"of {len(kept)} images; "
            "files are named as they lie in the data, like a/b.png."
        )
    return [given[image.name] for image in kept]


def _by_name(kept: list[_Kept]) -> Tensor | None:
    """The order of the names, or None where it is that already."""
    order = sorted(range(len(kept)), key=lambda row: PurePosixPath(kept[row].name).parts)
    return None if order == list(range(len(kept))) else torch.tensor(order)


class Stack:
    """Images of one size as one array that grows.

    Grey ones become colour once a colour image comes.

    Args:
        rows: how many images are expected; 0 if that is not known.
    """

    def __init__(self, rows: int = 0) -> None:
        self.rows = np.empty((rows or FIRST_ROWS, 0, 0, 0), np.uint8)
        self.count = 0

    def add(self, pixels: Pixels) -> None:
        """Adds an image, ``[C, H, W]``."""
        if self.count == 0:
            self.rows = np.empty((len(self.rows), *pixels.shape), np.uint8)
        if len(pixels) > self.rows.shape[1]:
            self.rows = np.repeat(self.rows, len(pixels), axis=1)
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[self.count] = pixels
        self.count += 1

    def pixels(self) -> Pixels:
        """All images, ``[N, C, H, W]``."""
        return self.rows[: self.count]
