"""Resizing images to one size."""

import numpy as np
from PIL import Image

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.options import Fit

__all__ = ["fitted", "kept"]

# Large images are first averaged over whole pixels, down to this many times the wanted size
REDUCING_GAP = 3.0


def fitted(pixels: Pixels, size: tuple[int, int], fit: Fit) -> Pixels:
    """An image resized to a given height and width.

    Args:
        pixels: uint8 ``[H, W, C]``, any number of channels.
        size: wanted height and width.
        fit: ``center-crop`` scales until the image covers the size and cuts out the middle (the
            upper left one of two, if nothing is scaled and the middle is not a whole pixel);
            ``resize`` stretches; ``pad`` scales until the image is within the size and continues
            it by its reflection.

    Returns:
        uint8 ``[*size, C]``; ``pixels`` itself if it has that size.
    """
    if pixels.shape[:2] == size:
        return pixels
    if fit == "resize":
        return _resized(pixels, size)
    return _cropped(pixels, size) if fit == "center-crop" else _padded(pixels, size)


def _cropped(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle of an image that was scaled until it covers ``size``."""
    height, width = pixels.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    covering = (_covering(height, scale, size[0]), _covering(width, scale, size[1]))
    return _middle(_resized(pixels, covering), size)


def _covering(side: int, scale: float, least: int) -> int:
    """A scaled side with as many pixels beyond ``least`` before the middle as after it."""
    return side if scale == 1 else least + 2 * max(0, round((side * scale - least) / 2))


def _middle(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    top = (pixels.shape[0] - size[0]) // 2
    left = (pixels.shape[1] - size[1]) // 2
    return pixels[top : top + size[0], left : left + size[1]]


def _padded(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """An image that was scaled until it is within ``size``, continued by its reflection."""
    height, width = pixels.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = (_within(height * scale, size[0]), _within(width * scale, size[1]))
    missing = [want - have for want, have in zip(size, inner, strict=True)]
    margins = [(count // 2, count - count // 2) for count in missing]
    return np.pad(_resized(pixels, inner), [*margins, (0, 0)], mode="reflect")


def _within(side: float, most: int) -> int:
    return min(most, max(1, round(side)))


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resampled with a Lanczos filter, widened where images shrink; each channel separately."""
    if pixels.shape[:2] == size:
        return pixels
    channels = [np.ascontiguousarray(channel) for channel in pixels.transpose(2, 0, 1)]
    return np.stack([_resized_channel(channel, size) for channel in channels], -1)


def _resized_channel(channel: Pixels, size: tuple[int, int]) -> Pixels:
    height, width = size
    image = Image.fromarray(channel)
    lanczos = Image.Resampling.LANCZOS
    return np.asarray(image.resize((width, height), lanczos, reducing_gap=REDUCING_GAP))


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
    top = (height - size[0] / scale) / 2
    left = (width - size[1] / scale) / 2
    return left, top, width - left, height - top
