"""From an image file to bytes: grey or colour, 8 bits a channel, upright."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["SUFFIXES", "Pixels", "Undecodable", "decode", "is_image", "load_image"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
Pixels = NDArray[np.uint8]
ALPHA = "had transparent parts and were laid on white"
DEEP = "had 16 bits of grey and were rounded to 8 (divided by 257)"
PRINT = "were made for print (CMYK) and were converted to RGB"
# What Pillow and the standard library raise for files that are damaged or no images at all
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    NotImplementedError,
    struct.error,
    zlib.error,
    BadZipFile,
    Image.DecompressionBombError,
)


class Undecodable(Exception):
    """An image that cannot be decoded; the message says why, without its name."""


def is_image(name: str) -> bool:
    """Whether a path inside a data set is that of an image.

    Hidden files and what macOS puts into archives are not.
    """
    path = PurePath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def decode(opened: Callable[[], Image.Image]) -> tuple[Pixels, str]:
    """An image as bytes, and how it was converted.

    Returns uint8 ``[H, W, C]`` with one or three channels, and words, empty if nothing was done.

    Args:
        opened: opens it.

    Raises:
        Undecodable: if it is damaged or has other channels than grey or colour.
    """
    try:
        with opened() as image:
            image.load()
            return _as_bytes(image)
    except UnidentifiedImageError as error:
        raise Undecodable("its format cannot be identified") from error
    except DAMAGE as error:
        raise Undecodable(
            " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        ) from error


def load_image(file: Path) -> Tensor:
    """One image file as uint8 ``[C, H, W]``.

    Raises:
        BadInput: if it cannot be decoded.
    """
    try:
        pixels, _ = decode(lambda: Image.open(file))
    except Undecodable as error:
        raise BadInput(f"Cannot decode the image {file}: {error}.") from error
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _as_bytes(image: Image.Image) -> tuple[Pixels, str]:
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    upright = ImageOps.exif_transpose(image)
    if deep:
        return ((np.asarray(upright).astype(np.uint32) + 128) // 257).astype(np.uint8)[
            ..., None
        ], DEEP
    plain, done = _grey_or_colour(upright)
    array = np.asarray(plain)
    return array if array.ndim == 3 else array[..., None], done


def _grey_or_colour(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in mode L or RGB."""
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode in ("L", "RGB"):
        return image, ""
    if image.mode == "1":
        return image.convert("L"), ""
    if image.mode == "CMYK":
        return image.convert("RGB"), PRINT
    if image.mode in ("P", "YCbCr", "HSV"):
        return image.convert("RGB"), ""
    raise ValueError(
        f"its colour mode {image.mode} is none of grey, colour, palette, CMYK or 16-bit grey; "
        "convert it"
    )


def _on_white(image: Image.Image) -> tuple[Image.Image, str]:
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    opaque = layered.getchannel("A").getextrema()[0] == 255
    return Image.alpha_composite(white, layered).convert(mode), "" if opaque else ALPHA
