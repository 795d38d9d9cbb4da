"""Metadata of image files: the orientation, and files without metadata that are damaged."""

import io
from collections.abc import Iterator
from typing import IO, Any

from numpy.typing import NDArray
from PIL import Image

from multistage_diffusion.data.pillow import DAMAGE

__all__ = ["UPRIGHT", "orientation", "upright", "without_metadata"]

UPRIGHT = 1
ORIENTATION = 0x0112  # of EXIF data
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = {b"tRNS"}  # of the optional chunks of a PNG file
MOST_BYTES = 1 << 30


def orientation(image: Image.Image) -> int | None:
    """The orientation that EXIF data give, 1 for upright; from 5 on the sides are exchanged.

    None if they are damaged. A PNG may have it at its end, and Pillow would decode all of it to get
    there: taken as upright.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return UPRIGHT
    try:
        value = image.getexif().get(ORIENTATION, UPRIGHT)
        return int(value) if 1 <= int(value) <= 8 else UPRIGHT
    except DAMAGE:
        return None


def upright(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    """An image ``[H, W, C]`` turned as an orientation says."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def without_metadata(file: IO[bytes]) -> IO[bytes] | None:
    """The file of a PNG or JPEG image without its metadata; None for other formats."""
    file.seek(0)
    content = file.read(MOST_BYTES)
    if content.startswith(SIGNATURE):
        return io.BytesIO(SIGNATURE + b"".join(_needed_chunks(content)))
    if content.startswith(b"\xff\xd8\xff"):
        return io.BytesIO(b"\xff\xd8" + b"".join(_needed_segments(content)))
    return None


def _needed_chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG file that decide about its pixels."""
    start = len(SIGNATURE)
    while start + 12 <= len(content):
        length = int.from_bytes(content[start : start + 4])
        kind = content[start + 4 : start + 8]
        if kind[:1].isupper() or kind in NEEDED:
            yield content[start : start + 12 + length]
        start += 12 + length


def _needed_segments(content: bytes) -> Iterator[bytes]:
    """The segments of a JPEG file that decide about its pixels, and all behind them."""
    start = 2
    while content[start : start + 1] == b"\xff" and start + 4 <= len(content):
        marker = content[start + 1]
        if marker == 0xDA:
            break
        length = 2 + int.from_bytes(content[start + 2 : start + 4])
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            yield content[start : start + length]
        start += length
    yield content[start:]
