"""One pass over the images of a source: each is opened and decoded once.

Loading stacks what it yields, inspecting surveys it, and previews show some of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.data.decoding import Decoded, Pixels, Undecodable, decode
from multistage_diffusion.data.deep import DeepRange, scaled_to_bytes
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["BrokenImage", "ExaminedImage", "deep_range", "examine", "examine_entry"]

TURNED = "turned upright, as their EXIF data says"


@dataclass(frozen=True)
class ExaminedImage:
    """An image, and how it was stored."""

    name: str
    """Its path inside the data set."""
    where: str
    """Its name in messages."""
    label: Label
    pixels: Pixels
    """uint8 ``[H, W, C]``, upright, in its own size."""
    mode: str = "bytes"
    """Description of its channels as they are stored."""
    converted: str = ""
    """Description of how its values were converted; empty if they were not."""
    turned: bool = False
    """Whether it was turned upright."""
    page: int = 0
    """Which page of its file it is."""
    pages: int = 1
    """Pages of its file."""
    remarks: tuple[str, ...] = ()
    """What is wrong with its file although it could be decoded."""
    largest: int | None = None
    """The largest value of an image of 16 bits."""
    clipped: int = 0
    """How many of its values were too large for the range that became 0..255."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def changes(self) -> str:
        """Description of all that reading changed; empty for nothing."""
        words = (self.converted, TURNED if self.turned else "")
        return "; ".join(word for word in words if word)


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be decoded."""

    where: str
    reason: str


def examine(
    source: Listing | Images, options: ReadOptions
) -> Iterator[ExaminedImage | BrokenImage]:
    """Every image of a source, decoded by all cores, in order.

    Raises:
        BadInput: if the source holds latents.
    """
    if isinstance(source, Images):
        return _of_array(source)
    deep = deep_range(source, options)
    return in_order(partial(examine_entry, options, deep), source.entries())


def deep_range(listing: Listing, options: ReadOptions) -> DeepRange:
    """The value that becomes white in the 16-bit images of a source."""

    def largest() -> Iterable[int]:
        found = in_order(partial(_largest, options), listing.entries())
        return (value for value in found if value is not None)

    return DeepRange(largest, options.max_value)


def _largest(options: ReadOptions, entry: Entry) -> int | None:
    try:
        pixels = _decoded(options, entry).pixels
    except Undecodable:
        return None
    return int(pixels.max()) if pixels.dtype == np.uint16 else None


def _decoded(options: ReadOptions, entry: Entry) -> Decoded:
    return decode(
        entry.open,
        page=entry.page,
        max_pixels=options.max_pixels,
        keep_alpha=options.transparency == "keep",
    )


def examine_entry(
    options: ReadOptions, deep: DeepRange, entry: Entry
) -> ExaminedImage | BrokenImage:
    """Opens and decodes an image.

    Args:
        options: how images are read.
        deep: the range of the 16-bit images of the source.
        entry: the image.
    """
    try:
        decoded = _decoded(options, entry)
    except Undecodable as error:
        return BrokenImage(entry.where, str(error))
    pixels, values = decoded.pixels, decoded.pixels
    done, largest, clipped = decoded.done, None, 0
    if values.dtype == np.uint16:
        pixels, largest = scaled_to_bytes(values.astype(np.uint16), deep.top), int(values.max())
        done, clipped = scaling(deep.top), int((values > deep.top).sum())
    return ExaminedImage(
        name=entry.name,
        where=entry.where,
        label=entry.label,
        pixels=_with_alpha(pixels) if options.transparency == "keep" else _bytes(pixels),
        mode=decoded.mode,
        converted=done,
        turned=decoded.turned,
        page=entry.page,
        pages=decoded.pages,
        remarks=decoded.remarks,
        largest=largest,
        clipped=clipped,
    )


def _bytes(pixels: NDArray[Any]) -> Pixels:
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _with_alpha(pixels: NDArray[Any]) -> Pixels:
    """Four channels of which the last one is opaque, unless there are four already."""
    if pixels.shape[2] == 4:
        return _bytes(pixels)
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.dstack([_bytes(colour), np.full(pixels.shape[:2], 255, np.uint8)])


def scaling(top: int) -> str:
    """Description of the conversion of 16-bit images."""
    bits = f" ({top.bit_length()} bits)" if top & (top + 1) == 0 else ""
    return f"had 16 bits a channel and were rounded to 8: 0..{top}{bits} became 0..255"


def _of_array(images: Images) -> Iterator[ExaminedImage]:
    if not images.space.stores_pixels:
        raise BadInput(
            f"{images.source} holds {images.space.contents}; inspect is for images. multistage "
            "cluster reads both."
        )
    for row in range(len(images)):
        label = None if images.labels is None else int(images.labels[row])
        pixels = images.pixels[row].permute(1, 2, 0).numpy()
        where = f"{images.source} image {row}"
        mode = f"array, {pixels.shape[2]} channels"
        yield ExaminedImage(str(row), where, label, pixels, mode)
