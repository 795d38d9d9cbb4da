"""Numbers of any type as bytes: which of them is black and which is white."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.data.deep import range_of_bits
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.errors import BadInput

__all__ = ["Measured", "ToBytes", "find_range", "measure"]

FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0))
LEAST_OF_BYTES = 32.0  # images of 0..255 have at least one value above, unlike those of 0..16
ROUNDING = 1e-3  # of a range: values may be outside by less than half a step of 8 bits


@dataclass(frozen=True)
class ToBytes:
    """Scales values from black to white to 0..255, rounded."""

    black: float
    white: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of any shape as bytes; what lies outside becomes black or white."""
        share = (values.astype(np.float32) - self.black) / (self.white - self.black)
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Measured:
    """The smallest and the largest number of an array, and in which image they are."""

    least: float
    most: float
    least_in: int
    most_in: int


def measure(blocks: Iterable[NDArray[Any]], where: str) -> Measured:
    """Finds the range of the values of images.

    Args:
        blocks: the images in order, ``[n, ...]`` each.
        where: the array, for messages.

    Raises:
        BadInput: if a value is not finite; names the image.
    """
    found: Measured | None = None
    first = 0
    for block in blocks:
        flat = block.reshape(len(block), -1)
        low, high = flat.min(1), flat.max(1)
        finite = np.isfinite(low.astype(np.float64)) & np.isfinite(high.astype(np.float64))
        if not finite.all():
            number = int(np.argmin(finite))
            value = flat[number][~np.isfinite(flat[number].astype(np.float64))][0]
            raise BadInput(f"{where} image {first + number} holds {value}, which is no number.")
        here = Measured(
            float(low.min()),
            float(high.max()),
            first + int(low.argmin()),
            first + int(high.argmax()),
        )
        found = here if found is None else _both(found, here)
        first += len(block)
    return found or Measured(0, 0, 0, 0)


def _both(one: Measured, two: Measured) -> Measured:
    low = one if one.least <= two.least else two
    high = one if one.most >= two.most else two
    return Measured(low.least, high.most, low.least_in, high.most_in)


def find_range(
    stored: np.dtype[Any], measured: Measured, options: ReadOptions, where: str
) -> ToBytes:
    """Black and white of images that are not stored as bytes.

    Args:
        stored: the type of the array.
        measured: the range of its values.
        options: ``value_range`` or ``max_value`` may say it.
        where: the array, for messages.

    Raises:
        BadInput: if the values are those of no image, or outside of a range that is given.
    """
    if stored.kind == "b":
        return ToBytes(0, 1)
    if stored.kind in "iu":
        return _of_integers(measured, options, where)
    if options.value_range is not None:
        return _as_given(measured, options.value_range, where)
    ranges = FLOAT_RANGES if measured.most < LEAST_OF_BYTES else ((0.0, 255.0),)
    for black, white in ranges:
        if not _outside(measured, black, white):
            return ToBytes(black, white)
    raise BadInput(
        f"{where} holds floating-point values from {measured.least:.4g} (image "
        f"{measured.least_in}) to {measured.most:.4g} (image {measured.most_in}), which is none of "
        "the ranges of images, 0..1, -1..1 and 0..255: give --value-range BLACK WHITE for images, "
        "or --latents for latents of an autoencoder, [N, C, H, W]."
    )


def _outside(measured: Measured, black: float, white: float) -> list[tuple[float, int]]:
    """The smallest and the largest value, if they are outside of a range, and their images."""
    slack = ROUNDING * (white - black)
    low = [(measured.least, measured.least_in)] if measured.least < black - slack else []
    high = [(measured.most, measured.most_in)] if measured.most > white + slack else []
    return low + high


def _of_integers(measured: Measured, options: ReadOptions, where: str) -> ToBytes:
    if measured.least < 0 or measured.most > 65535:
        outside, number = measured.least, measured.least_in
        if measured.least >= 0:
            outside, number = measured.most, measured.most_in
        raise BadInput(
            f"{where} image {number} holds {outside:.0f}; whole numbers of images are 0 to 255, or "
            "to 65535 for 16 bits."
        )
    top = options.max_value or range_of_bits(int(measured.most))
    return ToBytes(0, top)


def _as_given(measured: Measured, given: tuple[float, float], where: str) -> ToBytes:
    black, white = given
    for value, number in _outside(measured, black, white):
        raise BadInput(
            f"{where} image {number} holds {value:.6g}, outside of --value-range {black:g} "
            f"{white:g}."
        )
    return ToBytes(black, white)
