"""One pass over a data set: what there is, what is broken, and statistics of the images as they are
read.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.data.decoding import DAMAGE, Pixels
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import numbered, read_labels
from multistage_diffusion.data.options import Fit, ReadOptions
from multistage_diffusion.data.sources.listing import Label, Listing
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection.duplicates import digest, thumbnail
from multistage_diffusion.inspection.looks import Broken, Look, evenly, looks, orientation
from multistage_diffusion.inspection.propose import Size, propose_size
from multistage_diffusion.inspection.sheet import Shown, show
from multistage_diffusion.inspection.statistics import Histogram

__all__ = ["Survey", "Watch", "survey"]

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
FITS: tuple[Fit, ...] = ("center-crop", "resize", "pad")
PART_BYTES = 160 << 20  # of images kept for the closed form: all of CIFAR-10
ROTATED = 5  # EXIF orientations from here on exchange height and width


@dataclass
class Survey:
    """What was seen. Lists have an entry for each image that could be decoded."""

    source: str
    options: ReadOptions
    """With these the images were read; the size is the one asked for, or proposed, or none."""
    expected: int
    """Images in the source, broken ones among them."""
    notes: tuple[str, ...] = ()
    """About the source, in words."""
    classes: tuple[str, ...] = ()
    """Names of classes that the source gives."""
    broken: list[Broken] = field(default_factory=list)
    sizes: Counter[Size] = field(default_factory=Counter)
    """Heights and widths as they are stored."""
    examples: dict[Size, str] = field(default_factory=dict)
    """The first image of each size."""
    modes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How images are stored, and what reading did to them."""
    names: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: list[Pixels] = field(default_factory=list)
    histogram: Histogram = field(default_factory=Histogram)
    """Of the images as they are read."""
    shown: list[Shown] = field(default_factory=list)
    """Some images, spread evenly, for pictures."""
    part: list[Pixels] = field(default_factory=list)
    """Some images as they are read, spread evenly, for the closed form."""

    def add(self, number: int, look: Look) -> None:
        """Adds the image with this number in the source."""
        self.sizes[look.size] += 1
        self.examples.setdefault(look.size, look.where)
        self.modes[look.mode, look.done] += 1
        self.names.append(look.where)
        self.labels.append(look.label)
        self.digests.append(digest(look.pixels))
        self.thumbnails.append(thumbnail(look.pixels))
        size = self.options.height_and_width
        pixels = look.pixels if size is None else fitted(look.pixels, size, self.options.fit)
        self.histogram.add(pixels)
        if evenly(number, self.expected):
            self.shown.append(
                show(replace(look, label=self._class(look.label)), size, self._fits())
            )
        if evenly(number, self.expected, PART_BYTES // pixels.size):
            self.part.append(pixels)

    def _class(self, label: Label) -> Label:
        """The name of a class where only its number is given."""
        return (
            self.classes[label]
            if isinstance(label, int) and 0 <= label < len(self.classes)
            else label
        )

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
        rows = [np.broadcast_to(pixels, (*pixels.shape[:2], self.shape[0])) for pixels in self.part]
        return Images(
            torch.from_numpy(np.stack(rows).transpose(0, 3, 1, 2).copy()), source=self.source
        )

    def numbered_labels(self) -> tuple[Tensor | None, tuple[str, ...]]:
        """The labels as numbers and the names of the classes, as a run reads them.

        Raises:
            BadInput: if some are missing or cannot be used.
        """
        return numbered(self.labels, self.names, self.classes)


def survey(source: str, options: ReadOptions, watch: Watch = lambda items, *_: items) -> Survey:
    """Looks at every image of a source, one after the other.

    Sizes come first, from the headers alone: where they differ and none is asked for, or where they
    are larger than the presets are for, images are read in the size that is proposed.

    Args:
        source: as for ``load``.
        options: how images are read.
        watch: passes items on, and may show how far they have come: the items, what they are, how
            many there are.

    Raises:
        BadInput: if there is nothing to look at.
    """
    sizes = _sizes(list_images(source, options), watch)
    proposed = (
        None
        if options.size
        else propose_size(Counter({size: n for size, n in sizes.items() if all(size)}))
    )
    read = replace(options, size=proposed) if proposed else options
    found, total = list_images(source, options), sizes.total()
    seen = Survey(found.source, read, total, found.notes, found.classes)
    given = read_labels(options.labels) if options.labels else None
    for number, look in enumerate(watch(looks(found), "images", total)):
        if isinstance(look, Broken):
            seen.broken.append(look)
        else:
            seen.add(number, look if given is None else replace(look, label=given.get(look.name)))
    if not seen.names:
        raise BadInput(
            f"All {total} images of {source} are broken; the first is {seen.broken[0].where}: "
            f"{seen.broken[0].reason}."
        )
    return seen


def _sizes(found: Listing | Images, watch: Watch) -> Counter[Size]:
    """Heights and widths as headers give them; images with a broken header count as 0x0."""
    if isinstance(found, Images):
        return Counter({found.shape[1:]: len(found)})
    return Counter(
        _header_size(entry.open) for entry in watch(found.entries(), "headers", found.count())
    )


def _header_size(opened: Callable[[], Any]) -> Size:
    try:
        with opened() as image:
            width, height = image.size
            return (width, height) if orientation(image) >= ROTATED else (height, width)
    except DAMAGE:
        return 0, 0
