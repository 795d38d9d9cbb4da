"""Contact sheets of images as they are stored and as networks see them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.examine import ExaminedImage
from multistage_diffusion.data.fitting import fitted, kept
from multistage_diffusion.data.options import Fit
from multistage_diffusion.text import printable

__all__ = ["SheetImage", "contact_sheet", "sheet_image"]

CELL = 128  # longest side of an image
GAP, LINE, MARGIN = 6, 16, 12
ACROSS, LINES = 8, 8  # cells in a line; lines
FRAME, INK, FAINT = "#e8590c", "#111111", "#666666"
TITLE, SMALL = 15, 11
LEAST = 640  # a title may make a picture so wide


@dataclass(frozen=True)
class SheetImage:
    """An image on a contact sheet."""

    caption: str
    original: Image.Image
    """The image, at most ``CELL`` pixels a side."""
    size: tuple[int, int]
    """Height and width it had."""
    fits: dict[Fit, Image.Image] = field(default_factory=dict)
    """What a network sees, for each way to bring the image to size, at most ``CELL`` pixels a
    side."""


def sheet_image(
    image: ExaminedImage, size: tuple[int, int] | None, fits: Sequence[Fit]
) -> SheetImage:
    """An image for a contact sheet.

    Args:
        image: the image.
        size: height and width networks see; None for its own.
        fits: ways to bring it there that are to be shown; the first one's frame is drawn.
    """
    own = image.size if size is None else size
    fitting = {fit: _in_cell(fitted(image.pixels, own, fit)) for fit in fits}
    original = _in_cell(image.pixels)
    for fit in fits[:1]:
        original = _framed(original, image.size, own, fit)
    words = [str(image.label) if image.label is not None else "", PurePosixPath(image.name).name]
    caption = ": ".join(word for word in words if word)
    drawable = caption.encode("utf-8", "replace").decode()  # names may be in another encoding
    return SheetImage(drawable, original, image.size, fitting)


def _in_cell(pixels: Pixels) -> Image.Image:
    """Enlarged by a whole number, or made smaller, to fit into a cell."""
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(image.size)
    if longest <= CELL:
        factor = CELL // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * CELL / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _framed(
    image: Image.Image, shape: tuple[int, int], size: tuple[int, int], fit: Fit
) -> Image.Image:
    """An image with a frame around the part that is kept, the rest faint."""
    scale = image.width / shape[1]
    left, top, right, bottom = (round(edge * scale) for edge in kept(shape, size, fit))
    box = (left, top, max(left + 1, right), max(top + 1, bottom))
    faint = Image.blend(image, Image.new("RGB", image.size, "white"), 0.55)
    faint.paste(image.crop(box), box[:2])
    ImageDraw.Draw(faint).rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), outline=FRAME, width=2
    )
    return faint


def contact_sheet(shown: Sequence[SheetImage], title: str) -> Image.Image:
    """One picture of many images.

    Where they differ, originals are shown beside what networks see; otherwise it is a grid.

    Args:
        shown: the images; where there are too many, some of them, spread evenly.
        title: the line above them.
    """
    columns = ("original", *shown[0].fits) if shown[0].fits else ("",)
    blocks = min(ACROSS // len(columns), len(shown))
    rows = [shown[index] for index in _spread(len(shown), LINES * blocks)]
    lines = [rows[start : start + blocks] for start in range(0, len(rows), blocks)]
    cell = max(image.width for one in rows for image in _images(one)) + GAP
    block = cell * len(columns) + (2 * GAP if len(columns) > 1 else 0)
    top = MARGIN + TITLE + GAP + (LINE if len(columns) > 1 else 0)
    canvas = Image.new("RGB", _page(title, block * blocks, top + sum(map(_height, lines))), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text(
        (MARGIN, MARGIN - 4),
        _shortened(title, canvas.width - 2 * MARGIN, TITLE),
        INK,
        ImageFont.load_default(TITLE),
    )
    for number, name in enumerate(columns * blocks):
        left = MARGIN + number // len(columns) * block + number % len(columns) * cell
        pen.text((left, top - LINE + 1), name, INK, ImageFont.load_default(SMALL))
    for line in lines:
        for number, one in enumerate(line):
            _put(canvas, one, (MARGIN + number * block, top), cell, _height(line) - LINE - GAP)
        top += _height(line)
    return canvas


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of at most ``wanted`` of ``count`` images, spread evenly."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]


def _images(one: SheetImage) -> list[Image.Image]:
    return [one.original, *one.fits.values()]


def _height(line: Sequence[SheetImage]) -> int:
    return max(image.height for one in line for image in _images(one)) + LINE + GAP


def _page(title: str, width: int, height: int) -> tuple[int, int]:
    least = min(LEAST, math.ceil(ImageFont.load_default(TITLE).getlength(title)))
    return 2 * MARGIN + max(least, width - GAP), height + MARGIN - GAP


def _put(
    canvas: Image.Image, one: SheetImage, place: tuple[int, int], cell: int, height: int
) -> None:
    """An image, or the images of a row, and the caption under them."""
    left, top = place
    for column, image in enumerate(_images(one)):
        canvas.paste(image, (left + column * cell, top))
    words = f"{one.caption}  {one.size[0]}x{one.size[1]}" if one.fits else one.caption
    words = _shortened(words, cell * len(_images(one)) - GAP)
    ImageDraw.Draw(canvas).text((left, top + height), words, FAINT, ImageFont.load_default(SMALL))


def _shortened(words: str, width: int, height: int = SMALL) -> str:
    """A text that is no wider than this, its middle left out if need be."""
    words = printable(words)
    font, shorter = ImageFont.load_default(height), words
    while font.getlength(shorter) > width and len(shorter) > 3:
        half = (len(shorter) - 3) // 2
        shorter = f"{words[:half]}..{words[-half:]}" if half else ".."
    return shorter
