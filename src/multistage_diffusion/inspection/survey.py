"""A survey of a data set: its images, which are broken, and statistics of the images as read."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from multistage_diffusion.data.changes import Changes
from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.examine import BrokenImage, ExaminedImage, examine
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import NumberedLabels, numbered
from multistage_diffusion.data.metadata import orientation
from multistage_diffusion.data.options import Fit, ReadOptions
from multistage_diffusion.data.pillow import DAMAGE, quiet
from multistage_diffusion.data.sources.left_out import LeftOut, left_out_notes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection.contact_sheet import SheetImage, sheet_image
from multistage_diffusion.inspection.duplicates import digest, thumbnail
from multistage_diffusion.inspection.proposal import Size, propose_size
from multistage_diffusion.inspection.selection import is_selected
from multistage_diffusion.inspection.statistics import Histogram

__all__ = ["Progress", "Survey", "survey"]

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]
FITS: tuple[Fit, ...] = ("center-crop", "resize", "pad")
PART_BYTES = 160 << 20  # of images kept for the closed form: all of CIFAR-10
ROTATED = 5  # EXIF orientations from here on exchange height and width


@dataclass
class Survey:
    """What is in a source. Lists have an entry for each image that could be decoded."""

    name: str
    """The source as the user named it."""
    source: str
    """The source as messages call it."""
    options: ReadOptions
    """How images were read; the size is the one asked for, or proposed, or none."""
    expected: int
    """Images in the source, broken ones among them."""
    notes: tuple[str, ...] = ()
    """Remarks on the source."""
    classes: tuple[str, ...] = ()
    """Names of classes that the source gives."""
    left_out: tuple[LeftOut, ...] = ()
    """Files and images of the source that are not read."""
    changes: Changes = field(default_factory=Changes)
    """What reading changed."""
    broken: list[BrokenImage] = field(default_factory=list)
    sizes: Counter[Size] = field(default_factory=Counter)
    """Heights and widths as they are stored."""
    examples: dict[Size, str] = field(default_factory=dict)
    """The first image of each size."""
    modes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How images are stored, and what reading changed."""
    names: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: list[Pixels] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)
    """Of the images as they are read."""
    shown: list[SheetImage] = field(default_factory=list)
    """Some images, spread evenly, for the contact sheet."""
    part: list[Pixels] = field(default_factory=list)
    """Some images as they are read, spread evenly, for the closed form."""

    def add(self, number: int, image: ExaminedImage) -> None:
        """Adds the image with this number in the source."""
        self.sizes[image.size] += 1
        self.examples.setdefault(image.size, image.where)
        self.modes[image.mode, image.changes] += 1
        self.changes.add(image, self.options.pages == "all")
        self.names.append(image.where)
        self.labels.append(image.label)
        self.digests.append(digest(image.pixels))
        self.thumbnails.append(thumbnail(image.pixels))
        size = self.options.height_and_width
        pixels = image.pixels if size is None else fitted(image.pixels, size, self.options.fit)
        self.histogram.add(pixels)
        if is_selected(number, self.expected):
            named = replace(image, label=self._class(image.label))
            self.shown.append(sheet_image(named, size, self._fits()))
        if is_selected(number, self.expected, PART_BYTES // pixels.size):
            self.part.append(pixels)

    def _class(self, label: Label) -> Label:
        """The name of a class where only its number is given."""
        if isinstance(label, int) and 0 <= label < len(self.classes):
            return self.classes[label]
        return label

    def _fits(self) -> tuple[Fit, ...]:
        """The ways to bring images to size, the chosen one first; none where they keep theirs."""
        chosen = self.options.fit
        return (chosen, *(fit for fit in FITS if fit != chosen)) if self.options.size else ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width as images are read."""
        return (self.histogram.channels, *(self.options.height_and_width or next(iter(self.sizes))))

    def part_images(self) -> Images:
        """The part of the images that was kept for the closed form."""
        channels = self.shape[0]
        rows = [np.broadcast_to(pixels, (*pixels.shape[:2], channels)) for pixels in self.part]
        stacked = np.stack(rows).transpose(0, 3, 1, 2).copy()
        return Images(torch.from_numpy(stacked), source=self.source)

    def remarks(self) -> list[str]:
        """What there is to say about the source and about what reading changed."""
        return [*self.notes, *left_out_notes(self.left_out), *self.changes.further()]

    def numbered_labels(self) -> NumberedLabels:
        """The labels as numbers and the names of the classes, as a run reads them.

        Raises:
            BadInput: if some are missing or cannot be used.
        """
        return numbered(self.labels, self.names, self.classes)


def survey(
    source: str, options: ReadOptions, progress: Progress = lambda items, *_: items
) -> Survey:
    """Looks at every image of a source, one after the other.

    Where sizes differ and none is asked for, or where they are larger than the presets are for,
    images are read in a size that is proposed; it comes from the headers alone.

    Args:
        source: as for ``load``.
        options: how images are read.
        progress: passes items on, and may show progress; it is given the items, a label and their
            number.

    Raises:
        BadInput: if there is no image that can be decoded.
    """
    listed = list_images(source, options)
    sizes = _sizes(listed, progress)
    result = Survey(
        name=source,
        source=listed.source,
        options=_with_proposed_size(options, sizes),
        expected=sizes.total(),
        notes=listed.notes,
        classes=listed.classes,
        left_out=listed.left_out,
    )
    images = progress(examine(listed, options), "images", result.expected)
    for number, image in enumerate(images):
        if isinstance(image, BrokenImage):
            result.broken.append(image)
        else:
            result.add(number, image)
    _check(result)
    return result


def _with_proposed_size(options: ReadOptions, sizes: Counter[Size]) -> ReadOptions:
    """Options with a size: the one asked for, or proposed, or none."""
    if options.size:
        return options
    readable = Counter({size: count for size, count in sizes.items() if all(size)})
    proposed = propose_size(readable)
    return replace(options, size=proposed) if proposed else options


def _check(result: Survey) -> None:
    if not result.names:
        first = result.broken[0]
        raise BadInput(
            f"All {result.expected} images of {result.name} are broken; the first is "
            f"{first.where}: {first.reason}."
        )


def _sizes(listed: Listing | Images, progress: Progress) -> Counter[Size]:
    """Heights and widths as headers give them; images with a broken header count as 0x0."""
    if isinstance(listed, Images):
        return Counter({listed.shape[1:]: len(listed)})
    entries = progress(listed.entries(), "headers", listed.count())
    return Counter(map(_header_size, entries))


def _header_size(entry: Entry) -> Size:
    try:
        with quiet(), entry.open() as file, Image.open(file) as image:
            image.seek(entry.page)
            width, height = image.size
            turned = (orientation(image) or 1) >= ROTATED
            return (width, height) if turned else (height, width)
    except DAMAGE:
        return 0, 0
