"""Images as PNG files and as grids."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multistage_diffusion.files import write_atomically

__all__ = ["grid_image", "save_png", "to_image"]


def to_image(pixels: Tensor) -> Image.Image:
    """One image, uint8 ``[C, H, W]``, for saving; grey for one channel."""
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def grid_image(pixels: Tensor, columns: int, least: int = 48) -> Image.Image:
    """Images side by side, row by row, with a line between them.

    Small ones are enlarged to ``least`` pixels a side.
    """
    factor = max(1, -(-least // min(pixels.shape[2:])))
    big = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = big.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = torch.full(
        (channels, rows * (height + 2) - 2, columns * (width + 2) - 2), 255, dtype=torch.uint8
    )
    for index, image in enumerate(big):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        canvas[:, top : top + height, left : left + width] = image
    return to_image(canvas)


def save_png(path: Path, image: Image.Image) -> None:
    """Writes a PNG file, atomically."""
    content = BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
