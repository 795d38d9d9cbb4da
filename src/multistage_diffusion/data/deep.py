"""16 bits a channel: all of them, and the range of values that a data set uses.

Cameras and microscopes store 10, 12 or 14 bits in files of 16, some programs even 8. So the
largest value of all 16-bit images of a set is found first, and the smallest number of bits that
holds it, of 8 to 16, is the range that becomes 0..255.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "DeepRange",
    "deep_colours",
    "has_16_bits",
    "is_stored_deep",
    "range_of_bits",
    "scaled_to_bytes",
]

FULL = 65535
DEEP = re.compile(r"^L;16$|;16[BLN]")
OTHER_BYTE = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B"} | {
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}
"""Pillow keeps the upper byte of a colour of 16 bits. With the bytes taken for exchanged, it keeps
the lower one; its own order (N) is that of the processor, taken as little-endian."""


def has_16_bits(mode: str) -> bool:
    """Whether the words for how an image is stored say so."""
    return mode.startswith("16-bit")


def is_stored_deep(image: Image.Image) -> bool:
    """Whether an image that is not decoded yet is stored with 16 bits a channel.

    ``BGR;16`` is not: it packs a pixel into 16 bits.
    """
    return any(DEEP.search(mode) for mode in _raw_modes(image))


def deep_colours(image: Image.Image, again: Callable[[], Image.Image]) -> NDArray[np.uint16] | None:
    """Colours of 16 bits, uint16 ``[H, W, 3]``, or grey with an opaque alpha, ``[H, W, 1]``.

    Args:
        image: the image, which is decoded.
        again: opens the same image again.

    Returns:
        The values as they are stored; None for other images and transparent ones.
    """
    modes = _raw_modes(image)
    if modes == ["LA;16B"]:
        return _opaque_grey(again())
    if not modes or any(mode not in OTHER_BYTE for mode in modes):
        return None
    low = _read_as(again(), [OTHER_BYTE[mode] for mode in modes])
    high = np.asarray(again())
    if high.shape[2] == 4 and high[..., 3].min() < 255:
        return None
    return high[..., :3].astype(np.uint16) * 256 + low[..., :3]


def _opaque_grey(image: Image.Image) -> NDArray[np.uint16] | None:
    """Grey with alpha in a PNG file, uint16 ``[H, W, 1]``, read as the four bytes that it has."""
    stored = _read_as(image, ["RGBA"]).astype(np.uint16)
    return stored[..., :1] * 256 + stored[..., 1:2] if stored[..., 2].min() == 255 else None


def _read_as(image: Image.Image, modes: list[str]) -> NDArray[np.uint8]:
    """The bytes ``[H, W, C]`` of an image whose tiles are read in other raw modes."""
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=_with_raw_mode(tile.args, mode))
        for tile, mode in zip(image.tile, modes, strict=True)  # type: ignore[attr-defined]
    ]
    return np.asarray(image)


def _raw_modes(image: Image.Image) -> list[str]:
    """The raw mode of each tile of an image that is not decoded yet."""
    return [_raw_mode(tile.args) for tile in getattr(image, "tile", ())]


def _raw_mode(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def _with_raw_mode(arguments: Any, mode: str) -> Any:
    return mode if isinstance(arguments, str) else (mode, *arguments[1:])


def range_of_bits(largest: int) -> int:
    """The largest number of as few bits, of 8 to 16, as hold a value."""
    return (1 << max(8, int(largest).bit_length())) - 1


def scaled_to_bytes(values: NDArray[np.uint16], top: int) -> NDArray[np.uint8]:
    """Values 0..top as 0..255, rounded; larger ones are 255."""
    scaled = (np.minimum(values, top).astype(np.uint32) * 255 + top // 2) // top
    return scaled.astype(np.uint8)


class DeepRange:
    """The value of 16-bit images that becomes white, found once a first image needs it.

    Args:
        largest: the largest values of the 16-bit images of a set, from which it is found.
        given: the value to take instead.
    """

    def __init__(self, largest: Callable[[], Iterable[int]], given: int | None = None) -> None:
        self._largest = largest
        self._top = given
        self._lock = threading.Lock()

    @property
    def top(self) -> int:
        """The value that becomes 255."""
        with self._lock:
            if self._top is None:
                self._top = range_of_bits(max(self._largest(), default=FULL))
            return self._top
