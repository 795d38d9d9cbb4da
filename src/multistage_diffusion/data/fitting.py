"""Images of any size brought to one size."""

import numpy as np
from PIL import Image

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.options import Fit

__all__ = ["fitted", "kept"]

REDUCING_GAP = 3.0  # large images are first averaged over whole pixels, down to this many times the size that is wanted


def fitted(pixels: Pixels, size: tuple[int, int], fit: Fit) -> Pixels:
    """An image of another size.

    Args:
        pixels: uint8 ``[H, W, C]``, any number of channels.
        size: height and width that are wanted.
        fit: ``center-crop`` scales until the image covers the size and cuts out the middle; ``resize`` stretches; ``pad`` scales
            until the image lies within the size and continues it by its reflection. Where nothing
            is scaled and the middle is not a whole pixel, the upper left one is taken.
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    if fit == "resize":
        return _resized(pixels, size)
    if fit == "center-crop":
        scale = max(size[0] / height, size[1] / width)
        return _middle(
            _resized(pixels, (_around(height, scale, size[0]), _around(width, scale, size[1]))),
            size,
        )
    scale = min(size[0] / height, size[1] / width)
    return _padded(
        _resized(pixels, (_within(height * scale, size[0]), _within(width * scale, size[1]))), size
    )


def _around(side: int, scale: float, least: int) -> int:
    """A scaled side that leaves as many pixels on one side of the middle as on the other."""
    return side if scale == 1 else least + 2 * max(0, round((side * scale - least) / 2))


def _within(side: float, most: int) -> int:
    return min(most, max(1, round(side)))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resampled by Lanczos' filter, stretched by the scale where images shrink; each channel for itself."""
    if pixels.shape[:2] == size:
        return pixels
    channels = (
        Image.fromarray(np.ascontiguousarray(channel)) for channel in pixels.transpose(2, 0, 1)
    )
    scaled = (
        channel.resize(size[::-1], Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
        for channel in channels
    )
    return np.stack([np.asarray(channel) for channel in scaled], -1)


def _middle(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]


def _padded(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    missing = [want - have for have, want in zip(pixels.shape[:2], size, strict=True)]
    sides = [(count // 2, count - count // 2) for count in missing]
    return np.pad(pixels, [*sides, (0, 0)], mode="reflect")


def kept(
    shape: tuple[int, int], size: tuple[int, int], fit: Fit
) -> tuple[float, float, float, float]:
    """The part of an image that ``fitted`` keeps, in its own pixels: left, top, right, bottom.

    Args:
        shape: height and width of the image.
        size, fit: as for ``fitted``.
    """
    height, width = shape
    if fit != "center-crop":
        return 0, 0, width, height
    scale = max(size[0] / height, size[1] / width)
    above, aside = (height - size[0] / scale) / 2, (width - size[1] / scale) / 2
    return aside, above, width - aside, height - above
