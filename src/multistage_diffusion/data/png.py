"""Images as PNG files and as grids."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = ["AS_PNG", "check_bands", "grid_image", "save_png", "shown_bands", "to_image"]

AS_PNG = (1, 3, 4)
"""Numbers of channels that a PNG file holds: grey, colour, and colour with transparency."""

GROUP_GAP = 10  # pixels


def check_bands(channels: int, bands: Sequence[int]) -> None:
    """Checks which channels are to be shown.

    Args:
        channels: how many there are.
        bands: three of them for red, green and blue, or one for grey, counted from 1.

    Raises:
        BadInput: if they do not exist or are too few or many.
    """
    if bands and (len(bands) not in (1, 3) or not all(1 <= band <= channels for band in bands)):
        given = " ".join(map(str, bands))
        raise BadInput(f"--bands takes 1 or 3 numbers from 1 to {channels}, not {given}.")


def shown_bands(pixels: Tensor, bands: Sequence[int] = ()) -> Tensor:
    """Images in channels that a PNG file can hold.

    Args:
        pixels: ``[..., C, H, W]``.
        bands: as for ``check_bands``. By default all if a PNG file holds as many, else the first
            three, or the first of two.
    """
    channels = pixels.shape[-3]
    check_bands(channels, bands)
    if bands:
        return pixels[..., [band - 1 for band in bands], :, :]
    return pixels if channels in AS_PNG else pixels[..., : 3 if channels > 3 else 1, :, :]


def to_image(pixels: Tensor) -> Image.Image:
    """One image, uint8 ``[C, H, W]``, for saving; grey for one channel, transparent for four."""
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def grid_image(pixels: Tensor, columns: int, least: int = 48, group: int = 0) -> Image.Image:
    """Images side by side, row by row, with a line between them.

    Small ones are enlarged to ``least`` pixels a side. After each ``group`` of them in a row the
    line is wider.
    """
    factor = max(1, -(-least // min(pixels.shape[2:])))
    big = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = big.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    lefts = [k * (width + 2) + (k // group * GROUP_GAP if group else 0) for k in range(columns)]
    size = channels, rows * (height + 2) - 2, lefts[-1] + width
    canvas = torch.full(size, 255, dtype=torch.uint8)
    for index, image in enumerate(big):
        top, left = index // columns * (height + 2), lefts[index % columns]
        canvas[:, top : top + height, left : left + width] = image
    return to_image(canvas)


def save_png(path: Path, image: Image.Image) -> None:
    """Writes a PNG file, atomically."""
    content = BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
