"""One pass over the images of a source: each is opened and decoded once.

Loading stacks what it yields, inspecting surveys it, and previews show some of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from multistage_diffusion.data.decoding import Pixels, Undecodable, decode
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["BrokenImage", "ExaminedImage", "examine", "examine_entry", "orientation"]

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, alpha",
    "P": "palette",
    "PA": "palette, alpha",
    "RGBA": "RGB, alpha",
}
UPRIGHT = 1
ORIENTATION = 0x0112  # of EXIF data
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
    """Its channels as they are stored, in words."""
    converted: str = ""
    """How its values were converted, in words; empty if they were not."""
    turned: bool = False
    """Whether it was turned upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def changes(self) -> str:
        """All that reading changed, in words; empty for nothing."""
        words = (self.converted, TURNED if self.turned else "")
        return "; ".join(word for word in words if word)


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be decoded."""

    where: str
    reason: str


def examine(source: Listing | Images) -> Iterator[ExaminedImage | BrokenImage]:
    """Every image of a source, decoded by all cores, in order.

    Raises:
        BadInput: if the source holds latents.
    """
    if isinstance(source, Images):
        return _of_array(source)
    return in_order(examine_entry, source.entries())


def examine_entry(entry: Entry) -> ExaminedImage | BrokenImage:
    """Opens and decodes an image."""
    stored: list[tuple[str, bool]] = []

    def opened() -> Image.Image:
        image = entry.open()
        stored.append((_mode(image), orientation(image) > UPRIGHT))
        return image

    try:
        pixels, converted = decode(opened)
    except Undecodable as error:
        return BrokenImage(entry.where, str(error))
    mode, turned = stored[0]
    contiguous = np.ascontiguousarray(pixels)
    return ExaminedImage(entry.name, entry.where, entry.label, contiguous, mode, converted, turned)


def _of_array(images: Images) -> Iterator[ExaminedImage]:
    if not images.space.stores_pixels:
        raise BadInput(
            f"{images.source} holds {images.space.contents}; inspect looks at images. multistage "
            "cluster reads both."
        )
    for row in range(len(images)):
        label = None if images.labels is None else int(images.labels[row])
        pixels = images.pixels[row].permute(1, 2, 0).numpy()
        where = f"{images.source} image {row}"
        mode = f"array, {pixels.shape[2]} channels"
        yield ExaminedImage(str(row), where, label, pixels, mode)


def orientation(image: Image.Image) -> int:
    """The orientation that its EXIF data gives, 1 for upright; from 5 on the sides are exchanged.

    A PNG may have it at its end, and Pillow would decode all of it to get there: taken as upright.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return UPRIGHT
    return int(image.getexif().get(ORIENTATION, UPRIGHT))


def _mode(image: Image.Image) -> str:
    """How an image is stored, in words, before it is decoded."""
    words = MODES.get(image.mode, image.mode)
    if image.mode.startswith("I"):
        return "16-bit grey"
    if image.mode in ("RGB", "RGBA") and _has_16_bits(image):
        return f"16-bit {words}"
    if image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data:
        return f"{words}, alpha"
    return words


def _has_16_bits(image: Image.Image) -> bool:
    return any("16" in str(tile.args) for tile in getattr(image, "tile", ()))
