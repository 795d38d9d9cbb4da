"""Images of ``.npy`` files that are read when they are asked for, so that a data set may be larger than memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["MappedFile", "MappedRows"]


class MappedFile:
    """The images of one ``.npy`` file.

    Every read maps its own window of the file, so that neither memory nor address space ever holds the whole.

    Args:
        path: the file, with uint8 ``[N, H, W]`` or ``[N, H, W, C]`` (pixels), or floating point ``[N, C, H, W]`` (latents).
        channels_first: whether pixels are ``[N, C, H, W]`` too.

    Raises:
        BadInput: if the file is no such array, or is shorter than it says.
    """

    def __init__(self, path: Path, channels_first: bool = False) -> None:
        self.path, self.channels_first = path, channels_first
        shape, in_order = self._header()
        self.count, self.row = shape[0] if shape else 0, shape[1:]
        pixels = self.stored == np.uint8 and len(shape) in (3, 4)
        latents = self.stored.kind == "f" and len(shape) == 4
        if not (pixels or latents) or not in_order:
            raise BadInput(
                f"{path} holds {self.stored}{list(shape)}; give uint8 [N, H, W] or [N, H, W, C] "
                "for images, "
                "or floating point [N, C, H, W] for latents."
            )
        if path.stat().st_size < self.offset + shape[0] * self._row_bytes():
            raise BadInput(f"{path} ends before the last of its {shape[0]} images.")
        self.dtype = torch.uint8 if pixels else torch.float32
        self.shape = self._channels_first(np.empty((1, *self.row), self.stored)).shape[1:]

    def _header(self) -> tuple[tuple[int, ...], bool]:
        """Reads where the data begins and its type; returns its shape and whether it is in C order."""
        try:
            with self.path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, self.stored = read(file)
                self.offset = file.tell()
        except (OSError, ValueError) as error:
            raise BadInput(f"Cannot read {self.path}: {error}.") from error
        return shape, not fortran

    def _row_bytes(self) -> int:
        return math.prod(self.row) * self.stored.itemsize

    def window(self, start: int, stop: int) -> NDArray[Any]:
        """Images ``start .. stop - 1`` as they lie in the file, seen as ``[n, C, H, W]``."""
        offset = self.offset + start * self._row_bytes()
        return self._channels_first(
            np.memmap(self.path, self.stored, "r", offset, (stop - start, *self.row))
        )

    def _channels_first(self, rows: NDArray[Any]) -> NDArray[Any]:
        if rows.ndim == 3:
            return rows[:, None]
        return (
            rows.transpose(0, 3, 1, 2)
            if self.stored == np.uint8 and not self.channels_first
            else rows
        )


class MappedRows:
    """The images of ``.npy`` files, one file after the other, seen like a tensor ``[N, C, H, W]``.

    Args:
        files: the files. Grey images become colour where other files hold colour.
        order: which images these are, of all there are: int64 ``[N]``. Without it all, in their order.
    """

    def __init__(self, files: Sequence[MappedFile], order: Tensor | None = None) -> None:
        self.files, self.order = files, order
        self.ends = np.cumsum([file.count for file in files])
        count = int(self.ends[-1]) if order is None else len(order)
        channels = max(file.shape[0] for file in files)
        self.shape, self.dtype = torch.Size((count, channels, *files[0].shape[1:])), files[0].dtype

    def at(self, rows: Tensor) -> "MappedRows":
        """Some of the images, or all in another order, without reading them: ``rows`` is int64 ``[n]``, or bool ``[N]``."""
        order = torch.arange(len(self)) if self.order is None else self.order
        return MappedRows(self.files, order[rows])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Tensor | int) -> Tensor:
        """Reads images: a slice or a tensor of indices gives ``[n, C, H, W]``, a number one image."""
        if isinstance(index, int):
            return self[torch.tensor([range(len(self))[index]])][0]
        if isinstance(index, Tensor):
            return self._gathered(self._places(index))
        start, stop, step = index.indices(len(self))
        if self.order is not None:
            return self._gathered(self.order[start : max(start, stop) : step].numpy())
        return self._read(start, max(start, stop))[::step].contiguous()

    def _places(self, index: Tensor) -> NDArray[np.int64]:
        rows = torch.arange(len(self))[index] if self.order is None else self.order[index]
        return rows.numpy()

    def _gathered(self, places: NDArray[np.int64]) -> Tensor:
        """Single images, each through a window of its own."""
        rows = self._empty(len(places))
        files = np.searchsorted(self.ends, places, side="right")
        for row, place, number in zip(rows.numpy(), places.tolist(), files.tolist(), strict=True):
            within = place - int(self.ends[number]) + self.files[number].count
            row[:] = self.files[number].window(within, within + 1)[0]
        return rows

    def _read(self, start: int, stop: int) -> Tensor:
        """Images that lie together."""
        rows, first = self._empty(stop - start), 0
        for file in self.files:
            low, high = max(start, first), min(stop, first + file.count)
            if low < high:
                rows.numpy()[low - start : high - start] = file.window(low - first, high - first)
            first += file.count
        return rows

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, *self.shape[1:], dtype=self.dtype)
