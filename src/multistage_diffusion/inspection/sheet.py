"""Pictures of images as they are stored and as networks see them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.fitting import fitted, kept
from multistage_diffusion.data.options import Fit
from multistage_diffusion.inspection.looks import Look

__all__ = ["Shown", "draw", "show"]

CELL = 128  # longest side of an image
GAP, LINE, MARGIN = 6, 16, 12
PAIRS, GRID = 20, 8  # rows of images that were fitted; columns of a grid of images as they are
FRAME, INK, FAINT = "#e8590c", "#111111", "#666666"
TITLE, SMALL = 15, 11


@dataclass(frozen=True)
class Shown:
    """What a picture needs of an image."""

    caption: str
    original: Image.Image
    """The image, at most ``CELL`` pixels a side."""
    size: tuple[int, int]
    """Height and width it had."""
    fits: dict[Fit, Image.Image] = field(default_factory=dict)
    """What a network sees, for each way to bring the image to size, at most ``CELL`` pixels a side."""


def show(look: Look, size: tuple[int, int] | None, fits: Sequence[Fit]) -> Shown:
    """An image for a picture.

    Args:
        look: the image.
        size: height and width networks see; None for its own.
        fits: ways to bring it there that are to be shown; the first one's frame is drawn.
    """
    own = look.size if size is None else size
    fitting = {fit: _in_cell(fitted(look.pixels, own, fit)) for fit in fits}
    original = _in_cell(look.pixels)
    for fit in fits[:1]:
        original = _framed(original, look.size, own, fit)
    label = "" if look.label is None else str(look.label)
    return Shown(f"{label}  {PurePosixPath(look.name).name}".strip(), original, look.size, fitting)


def _in_cell(pixels: Pixels) -> Image.Image:
    """Enlarged by a whole number, or made smaller, to fit into a cell."""
    plain = pixels if pixels.shape[2] == 3 else np.repeat(pixels.mean(2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(plain))
    longest = max(image.size)
    if longest <= CELL:
        factor = CELL // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * CELL / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _framed(image: Image.Image, shape: tuple[int, int], size: tuple[int, int], fit: Fit) -> Image.Image:
    """What is kept in a frame, the rest faint."""
    scale = image.width / shape[1]
    left, top, right, bottom = (round(edge * scale) for edge in kept(shape, size, fit))
    box = (left, top, max(left + 1, right), max(top + 1, bottom))
    faint = Image.blend(image, Image.new("RGB", image.size, "white"), 0.55)
    faint.paste(image.crop(box), box[:2])
    ImageDraw.Draw(faint).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=FRAME, width=2)
    return faint


def draw(shown: Sequence[Shown], title: str) -> Image.Image:
    """One picture: originals beside what networks see where there is such, else a grid of the images."""
    fits = list(shown[0].fits)
    rows = _thinned(shown, PAIRS) if fits else shown
    blocks = max(1, 4 // (1 + len(fits))) * 2 if fits else min(GRID, len(rows))
    blocks = min(blocks, len(rows))
    cell = _cell(rows)
    width = len(fits) * (cell[0] + GAP) + cell[0]
    step = (width + (3 * GAP if fits else GAP), cell[1] + LINE + GAP)
    above = MARGIN + TITLE + GAP + (LINE if fits else 0)
    lines = -(-len(rows) // blocks)
    least = round(ImageFont.load_default(TITLE).getlength(title))
    whole = (2 * MARGIN + max(least, blocks * step[0] - (step[0] - width)), above + lines * step[1] + MARGIN - GAP)
    canvas = Image.new("RGB", whole, "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, MARGIN - 4), title, INK, ImageFont.load_default(TITLE))
    for block in range(blocks if fits else 0):
        for column, name in enumerate(("original", *fits)):
            place = (MARGIN + block * step[0] + column * (cell[0] + GAP), above - LINE + 1)
            pen.text(place, name, INK, ImageFont.load_default(SMALL))
    for index, one in enumerate(rows):
        left, top = MARGIN + index % blocks * step[0], above + index // blocks * step[1]
        for column, image in enumerate((one.original, *one.fits.values())):
            canvas.paste(image, (left + column * (cell[0] + GAP), top))
        words = f"{one.caption}  {one.size[0]}x{one.size[1]}" if fits else one.caption
        pen.text((left, top + cell[1]), _shortened(words, width), FAINT, ImageFont.load_default(SMALL))
    return canvas


def _thinned(shown: Sequence[Shown], count: int) -> list[Shown]:
    """At most so many of them, spread evenly."""
    count = min(count, len(shown))
    return [shown[index * len(shown) // count] for index in range(count)]


def _cell(shown: Sequence[Shown]) -> tuple[int, int]:
    """Width and height that hold every image."""
    images = [image for one in shown for image in (one.original, *one.fits.values())]
    return max(image.width for image in images), max(image.height for image in images)


def _shortened(words: str, width: int) -> str:
    """A text that is no wider than this, its middle left out if need be."""
    font = ImageFont.load_default(SMALL)
    if font.getlength(words) <= width:
        return words
    half = next(
        half for half in range(len(words) // 2, -1, -1) if font.getlength(f"{words[:half]}..{words[-half:]}") <= width or not half
    )
    return f"{words[:half]}..{words[len(words) - half :]}"
