"""The images of a data set as they are stored, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from multistage_diffusion.data.decoding import Pixels, Undecodable, decode
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.listing import Entry, Label, Listing
from multistage_diffusion.errors import BadInput

__all__ = ["Broken", "Look", "evenly", "looks", "orientation"]

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, alpha",
    "P": "palette",
    "PA": "palette, alpha",
    "RGBA": "RGB, alpha",
}
PICTURED = 64


@dataclass(frozen=True)
class Look:
    """An image and how it was stored."""

    name: str
    """Its path inside the data set."""
    where: str
    """How messages call it."""
    label: Label
    pixels: Pixels
    """uint8 ``[H, W, C]``, upright, in the size it has."""
    mode: str = "bytes"
    """Its channels as they are stored, in words."""
    done: str = ""
    """What reading did to them, in words; empty for nothing."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Broken:
    """An image that cannot be decoded."""

    where: str
    reason: str


def looks(found: Listing | Images) -> Iterator[Look | Broken]:
    """Every image of a source, decoded.

    Raises:
        BadInput: if they are latents.
    """
    return _of_array(found) if isinstance(found, Images) else in_order(_look, found.entries())


def evenly(number: int, count: int, wanted: int = PICTURED) -> bool:
    """Whether a number from 0 is one of ``wanted`` that are spread evenly over ``count``."""
    wanted = max(1, min(wanted, count))
    return number * wanted // count != (number - 1) * wanted // count


def _of_array(images: Images) -> Iterator[Look]:
    if not images.space.stores_pixels:
        raise BadInput(
            f"{images.source} holds {images.space.contents}; inspect looks at images. multistage "
            "cluster reads both."
        )
    for row in range(len(images)):
        label = None if images.labels is None else int(images.labels[row])
        pixels = images.pixels[row].permute(1, 2, 0).numpy()
        yield Look(
            str(row),
            f"{images.source} image {row}",
            label,
            pixels,
            f"array, {pixels.shape[2]} channels",
        )


def _look(entry: Entry) -> Look | Broken:
    stored: list[tuple[str, str]] = []

    def opened() -> Image.Image:
        image = entry.open()
        stored.append(
            (
                _mode(image),
                "turned upright, as their EXIF data says" if orientation(image) > 1 else "",
            )
        )
        return image

    try:
        pixels, done = decode(opened)
    except Undecodable as error:
        return Broken(entry.where, str(error))
    mode, turned = stored[0]
    words = "; ".join(word for word in (done, turned) if word)
    return Look(entry.name, entry.where, entry.label, np.ascontiguousarray(pixels), mode, words)


def orientation(image: Image.Image) -> int:
    """The orientation its EXIF data gives, 1 for upright; from 5 on height and width change
    places.
    """
    late = (
        image.format == "PNG" and "exif" not in image.info
    )  # Pillow would decode all of it to look at its end
    return 1 if late else int(image.getexif().get(0x0112, 1))


def _mode(image: Image.Image) -> str:
    """How an image is stored, in words, before it is decoded."""
    if image.mode.startswith("I"):
        return "16-bit grey"
    if any(
        "16" in str(tile.args)
        for tile in getattr(image, "tile", ())
        if image.mode in ("RGB", "RGBA")
    ):
        return f"16-bit {MODES.get(image.mode, image.mode)}"
    alpha = (
        ", alpha" if image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data else ""
    )
    return MODES.get(image.mode, image.mode) + alpha
