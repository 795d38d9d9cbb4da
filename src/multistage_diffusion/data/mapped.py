"""Images of a ``.npy`` file that are read when they are asked for, so that a data set may be larger than memory."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["MappedRows"]


class MappedRows:
    """The images of a ``.npy`` file, seen like a tensor ``[N, C, H, W]``.

    Every read maps its own window of the file, so that neither memory nor address space ever holds the whole.

    Args:
        path: the file, with uint8 ``[N, H, W]`` or ``[N, H, W, C]`` (pixels), or floating point ``[N, C, H, W]`` (latents).

    Raises:
        BadInput: if the file is no such array, or is shorter than it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shape, in_order = self._header()
        self.row = shape[1:]
        pixels = self.stored == np.uint8 and len(shape) in (3, 4)
        latents = self.stored.kind == "f" and len(shape) == 4
        if not (pixels or latents) or not in_order:
            raise BadInput(
                f"{path} holds {self.stored}{list(shape)}; give uint8 [N, H, W] or [N, H, W, C] for images, "
                "or floating point [N, C, H, W] for latents."
            )
        if path.stat().st_size < self.offset + shape[0] * self._row_bytes():
            raise BadInput(f"{path} ends before the last of its {shape[0]} images.")
        self.dtype = torch.uint8 if pixels else torch.float32
        self.shape = torch.Size((shape[0], *self._channels_first(np.empty((1, *self.row), self.stored)).shape[1:]))

    def _header(self) -> tuple[tuple[int, ...], bool]:
        """Reads where the data begins and its type; returns its shape and whether it is in C order."""
        try:
            with self.path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, self.stored = read(file)
                self.offset = file.tell()
        except (OSError, ValueError) as error:
            raise BadInput(f"Cannot read {self.path}: {error}.") from error
        return shape, not fortran

    def _row_bytes(self) -> int:
        return math.prod(self.row) * self.stored.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Tensor | int) -> Tensor:
        """Reads images: a slice or an index tensor gives ``[n, C, H, W]``, a number one image."""
        if isinstance(index, int):
            row = range(len(self))[index]
            return self._read(row, row + 1)[0]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._read(start, max(start, stop))[::step].contiguous()
        return torch.stack([self[row] for row in index.tolist()]) if len(index) else self._read(0, 0)

    def _read(self, start: int, stop: int) -> Tensor:
        if start >= stop:
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        offset = self.offset + start * self._row_bytes()
        window = np.memmap(self.path, self.stored, "r", offset, (stop - start, *self.row))
        return torch.from_numpy(np.array(self._channels_first(window), order="C")).to(self.dtype)

    def _channels_first(self, rows: NDArray[Any]) -> NDArray[Any]:
        if rows.ndim == 3:
            return rows[:, None]
        return rows.transpose(0, 3, 1, 2) if self.stored == np.uint8 else rows
