"""From the images of a source to a data set: images are resized and stacked in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.data.changes import Changes
from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.deep import DeepRange
from multistage_diffusion.data.examine import (
    BrokenImage,
    ExaminedImage,
    deep_range,
    examine_entry,
)
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import numbered
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.labelled import check_all_labelled
from multistage_diffusion.data.sources.left_out import left_out_notes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["Progress", "ReadingState", "SourceReader", "Stack", "assemble", "first_size"]

FIRST_ROWS = 256
Progress = Callable[[Iterator[Pixels], int, int], Iterator[Pixels]]
"""Passes images through and may show progress; it is also given their number and how many were read
before."""


def assemble(listing: Listing, options: ReadOptions, progress: Progress) -> Images:
    """Decodes and stacks the images of a source.

    Raises:
        BadInput: if images are broken and not to be skipped, sizes differ and none is asked for, or
            labels are missing.
    """
    reader = SourceReader(listing, options, ReadingState())
    stack = Stack(listing.count())
    for pixels in reader.images(progress):
        stack.add(pixels)
    return reader.finished(lambda: torch.from_numpy(stack.pixels()))


def first_size(listing: Listing, options: ReadOptions) -> int:
    """Bytes of the first image that can be decoded; 0 if there is none."""
    deep = DeepRange(lambda: ())
    for entry in listing.entries():
        _, pixels = _examine(options, deep, entry)
        if pixels is not None:
            return pixels.size
    return 0


def _examine(
    options: ReadOptions, deep: DeepRange, entry: Entry
) -> tuple[ExaminedImage | BrokenImage, Pixels | None]:
    """An image, and its resized pixels, ``[C, H, W]``, unless it is broken."""
    image = examine_entry(options, deep, entry)
    if isinstance(image, BrokenImage):
        return image, None
    size = options.height_and_width
    sized = image.pixels if size is None else fitted(image.pixels, size, options.fit)
    return image, np.ascontiguousarray(sized.transpose(2, 0, 1))


@dataclass
class ReadingState:
    """What is known of a source as far as it has been read."""

    entries: int = 0
    """Images that were read."""
    broken: dict[int, str] = field(default_factory=dict)
    """Which of them are broken, with the reason."""
    changes: Changes = field(default_factory=Changes)
    """What was changed in the others."""
    grey: int = 0
    """How many of the others are grey."""
    first: tuple[str, int, int] | None = None
    """Name, height and width of the first image."""

    def add(self, image: ExaminedImage, pixels: Pixels, options: ReadOptions) -> None:
        """Counts an image.

        Args:
            image: the image.
            pixels: it as it is read, ``[C, H, W]``.
            options: how it is read.

        Raises:
            BadInput: if it has another size than the first.
        """
        channels, height, width = pixels.shape
        self.first = self.first or (image.where, height, width)
        if (height, width) != self.first[1:]:
            raise BadInput(
                f"{image.where} is {height}x{width} (height x width), but {self.first[0]} is "
                f"{self.first[1]}x{self.first[2]}: give --size H W to make all images equal, and "
                "--fit center-crop, resize or pad for the way to do it."
            )
        self.entries += 1
        self.grey += channels == 1
        self.changes.add(image, options.pages == "all")
        self.changes.resized += image.size != (height, width)

    def add_broken(self, reason: str) -> None:
        """Counts an image that cannot be decoded."""
        self.broken[self.entries] = reason
        self.entries += 1

    def check(self, source: str, skip_broken: bool) -> None:
        """Raises BadInput about broken images, unless they are to be skipped and some are not."""
        first = next(iter(self.broken.values()), "")
        count = len(self.broken)
        if count and not skip_broken:
            others = f", the first of {count} that are broken" if count > 1 else ""
            raise BadInput(
                f"Cannot decode the image {first}{others}, of {self.entries}; fix or remove it, "
                "or give --skip-broken."
            )
        if count and count == self.entries:
            raise BadInput(f"All {count} images of {source} are broken; the first is {first}.")

    def notes(self) -> list[str]:
        """Remarks on how many images were converted in which way."""
        notes = [*self.changes.conversions(self.entries), *self.changes.further()]
        kept = self.entries - len(self.broken)
        if 0 < self.grey < kept:
            notes.append(
                f"{self.grey} of {kept} images were grey and became RGB, as the others are"
            )
        return notes


class _Decoded(NamedTuple):
    """An image that was decoded, without its pixels."""

    name: str
    where: str
    label: Label


class SourceReader:
    """Reads the images of a source, from where it was left.

    Args:
        listing: the source.
        options: how to read it.
        state: what is known from before; images read before are not decoded again.
    """

    def __init__(self, listing: Listing, options: ReadOptions, state: ReadingState) -> None:
        self.listing = listing
        self.options = options
        self.state = state
        self.decoded = list[_Decoded]()

    def images(self, progress: Progress) -> Iterator[Pixels]:
        """The images that can be decoded, ``[C, H, W]``, resized.

        ``state`` is up to the image that came last.
        """
        return progress(self._images(), self.listing.count(), self.state.entries)

    def _images(self) -> Iterator[Pixels]:
        deep = deep_range(self.listing, self.options)
        examined = in_order(partial(_examine, self.options, deep), self._remaining())
        for image, pixels in examined:
            if isinstance(image, BrokenImage):
                self.state.add_broken(f"{image.where}: {image.reason}")
                continue
            assert pixels is not None
            self.state.add(image, pixels, self.options)
            self.decoded.append(_Decoded(image.name, image.where, image.label))
            yield pixels

    def _remaining(self) -> Iterator[Entry]:
        """The entries that were not read before."""
        before = self.state.entries
        for number, entry in enumerate(self.listing.entries()):
            if number >= before:
                yield entry
            elif number not in self.state.broken:
                self.decoded.append(_Decoded(entry.name, entry.where, entry.label))

    def finished(self, pixels: Callable[[], Tensor | MappedRows]) -> Images:
        """The data set, once all images were read.

        Args:
            pixels: gives those that were decoded, ``[N, C, H, W]``.

        Raises:
            BadInput: if images are broken and not to be skipped, or labels are missing.
        """
        listing = self.listing
        self.state.check(listing.source, self.options.skip_broken)
        names = [image.where for image in self.decoded]
        given = [image.label for image in self.decoded]
        check_all_labelled([image.name for image in self.decoded], given, self.options)
        labels = numbered(given, names, listing.classes)
        about = (*listing.notes, *left_out_notes(listing.left_out), *labels.notes)
        images = Images(
            pixels(),
            labels.labels,
            labels.classes,
            listing.source,
            (*about, *self.state.notes()),
            tuple(self.state.broken.values()),
            class_numbers=labels.numbers,
            left_out=listing.left_out,
            resized=self.state.changes.resized,
        )
        order = _by_name(self.decoded) if listing.by_name else None
        ordered = images if order is None else images.at(order)
        return replace(ordered, original=listing)


def _by_name(decoded: list[_Decoded]) -> Tensor | None:
    """The order of the names, or None where they are in order."""
    parts = [PurePosixPath(image.name).parts for image in decoded]
    order = sorted(range(len(parts)), key=parts.__getitem__)
    return None if order == list(range(len(parts))) else torch.tensor(order)


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
