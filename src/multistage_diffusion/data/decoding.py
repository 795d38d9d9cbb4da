"""From an image file to numbers: grey or colour, 8 or 16 bits a channel, upright."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from multistage_diffusion.data.deep import deep_colours, has_16_bits, is_stored_deep
from multistage_diffusion.data.metadata import UPRIGHT, orientation, upright, without_metadata
from multistage_diffusion.data.pillow import DAMAGE, quiet
from multistage_diffusion.errors import BadInput

__all__ = ["MAX_PIXELS", "Decoded", "Pixels", "Undecodable", "decode", "load_image", "pages_of"]

Pixels = NDArray[np.uint8]
MAX_PIXELS = 178_956_970  # where Pillow suspects a decompression bomb
ALPHA = "had transparent parts and were laid on white"
CUT = "had 16 bits and transparency and were cut to their upper 8 bits"
PRINT = "were made for print (CMYK) and were converted to RGB"
DAMAGED_METADATA = "has damaged metadata, which was ignored"
NO_ORIENTATION = "has damaged EXIF data and was taken as upright"
PHOTOMETRIC = 262  # tag of TIFF files
WHITE_IS_ZERO = 0
LAYERED = frozenset({"PSD"})  # formats whose pages are parts of one picture
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, alpha",
    "P": "palette",
    "PA": "palette, alpha",
    "RGBA": "RGB, alpha",
}


class Undecodable(Exception):
    """An image that cannot be decoded; the message says why, without its name."""


@dataclass(frozen=True)
class Decoded:
    """An image file as numbers, and what was done to get them."""

    pixels: Pixels | NDArray[np.uint16]
    """``[H, W, C]`` with one or three channels, upright; uint16 as stored if the file is so deep.
    With four channels if transparency was to be kept."""
    mode: str
    """Description of its channels as they are stored."""
    done: str = ""
    """Description of how its values were converted; empty if they were not."""
    turned: bool = False
    """Whether it was turned upright."""
    pages: int = 1
    """Pages or frames of the file."""
    remarks: tuple[str, ...] = ()
    """What is wrong with the file although it could be decoded."""


def decode(
    opened: Callable[[], IO[bytes]],
    *,
    page: int = 0,
    max_pixels: int = MAX_PIXELS,
    keep_alpha: bool = False,
) -> Decoded:
    """Decodes an image. Damaged metadata do not matter.

    Args:
        opened: opens the file.
        page: which page or frame.
        max_pixels: most pixels that an image may have.
        keep_alpha: whether a transparent colour image gives four channels instead of being laid on
            white.

    Raises:
        Undecodable: if it is damaged, too large, or has other channels than grey or colour.
    """
    warned = list[str]()
    try:
        with quiet() as warned, opened() as file:
            decoded = _decode_somehow(file, page, max_pixels, keep_alpha)
    except UnidentifiedImageError as error:
        why = f": {warned[0]}" if warned else ""
        raise Undecodable(f"its format cannot be identified{why}") from error
    except DAMAGE as error:
        raise Undecodable(_reason(error)) from error
    return replace(decoded, remarks=(*decoded.remarks, *dict.fromkeys(warned)))


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def _decode_somehow(file: IO[bytes], page: int, max_pixels: int, keep_alpha: bool) -> Decoded:
    """Decodes a file; if that fails, again without its metadata."""
    try:
        return _decode(file, page, max_pixels, keep_alpha)
    except DAMAGE:
        plain = without_metadata(file)
        if plain is None:
            raise
        try:
            decoded = _decode(plain, page, max_pixels, keep_alpha)
        except DAMAGE:
            decoded = None
        if decoded is None:
            raise
        return replace(decoded, remarks=(DAMAGED_METADATA,))


def _decode(file: IO[bytes], page: int, max_pixels: int, keep_alpha: bool) -> Decoded:
    image = _opened(file, page, max_pixels)
    mode = _mode(image)
    _refuse_inverted(image)
    deep = deep_colours(image, lambda: _opened(file, page, max_pixels))
    turn = orientation(image)
    image.load()
    pages = pages_of(image)
    remarks = () if turn is not None else (NO_ORIENTATION,)
    turn = turn or UPRIGHT
    pixels, done = _as_array(image, keep_alpha) if deep is None else (deep, "")
    if deep is None and has_16_bits(mode) and pixels.dtype == np.uint8:
        done = CUT
    return Decoded(upright(pixels, turn), mode, done, turn > UPRIGHT, pages, remarks)


def _opened(file: IO[bytes], page: int, max_pixels: int) -> Image.Image:
    """An image at one of its pages, not decoded yet."""
    file.seek(0)
    image = Image.open(file)
    if page:
        image.seek(page)
    count = image.width * image.height
    if count > max_pixels:
        raise ValueError(
            f"it is {image.height}x{image.width}, which is {count:,} pixels, more than "
            f"--max-pixels {max_pixels}"
        )
    return image


def pages_of(image: Image.Image) -> int:
    """How many pages or frames an image has."""
    try:
        return 1 if image.format in LAYERED else int(getattr(image, "n_frames", 1))
    except DAMAGE:
        return 1


def load_image(file: Path, keep_alpha: bool = False) -> Tensor:
    """One image file as uint8 ``[C, H, W]``; 16 bits are divided by 257.

    Raises:
        BadInput: if it cannot be decoded.
    """
    try:
        pixels = decode(lambda: file.open("rb"), keep_alpha=keep_alpha).pixels
    except Undecodable as error:
        raise BadInput(f"Cannot decode the image {file}: {error}.") from error
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _refuse_inverted(image: Image.Image) -> None:
    """Raises ValueError about 16 bits that count from white, which Pillow does not invert."""
    tags = getattr(image, "tag_v2", {})
    if _is_deep_grey(image) and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise ValueError("its 16 bits count from white (WhiteIsZero); convert it to BlackIsZero")


def _is_deep_grey(image: Image.Image) -> bool:
    """Whether an image is grey with 16 bits, which Pillow keeps in 32 for some formats."""
    is_wide = image.mode == "I" and image.format in ("PNG", "PPM")
    return image.mode.startswith("I;16") or is_wide


def _mode(image: Image.Image) -> str:
    """Description of how an image is stored, before it is decoded."""
    words = MODES.get(image.mode, image.mode)
    if _is_deep_grey(image):
        return "16-bit grey"
    if is_stored_deep(image):
        return f"16-bit {words}"
    if image.mode in ("1", "L", "P", "RGB") and image.has_transparency_data:
        return f"{words}, alpha"
    return words


def _as_array(image: Image.Image, keep_alpha: bool) -> tuple[Pixels | NDArray[np.uint16], str]:
    """The pixels of an image that was loaded, and how they were converted."""
    if _is_deep_grey(image):
        return np.asarray(image).astype(np.uint16)[..., None], ""
    if keep_alpha and image.has_transparency_data:
        return np.asarray(image.convert("RGBA")), ""
    plain, done = _grey_or_colour(image)
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
