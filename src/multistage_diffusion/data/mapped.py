"""Images in ``.npy`` files that are read when needed, so that data may be larger than memory."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.data.value_range import ToBytes
from multistage_diffusion.errors import BadInput

__all__ = ["BAD_HEADER", "MappedFile", "MappedRows", "npy_header", "read_header"]

BAD_HEADER = (ValueError, TypeError, SyntaxError, TokenError)
"""Errors of numpy about the header of an array."""


def read_header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape of the array of a ``.npy`` file, whether it is in Fortran order, type and beginning.

    Raises:
        BadInput: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_first = np.lib.format.read_magic(file) == (1, 0)
            read = (
                np.lib.format.read_array_header_1_0
                if is_first
                else np.lib.format.read_array_header_2_0
            )
            return *read(file), file.tell()
    except (OSError, EOFError, *BAD_HEADER) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error


def npy_header(array: NDArray[Any]) -> bytes:
    """The header of the ``.npy`` file of an array, whose data follow."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue()


class MappedFile:
    """The images of one ``.npy`` file.

    Every read maps its own window of the file: neither memory nor address space holds all of it.

    Args:
        path: the file, with pixels, uint8 ``[N, H, W]`` or ``[N, H, W, C]``, or latents, floating
            point ``[N, C, H, W]``.
        channels_first: whether pixels are ``[N, C, H, W]`` too.
        to_bytes: makes pixels of numbers of any other type.
        bfloat16: whether it holds latents as the bits of bfloat16, uint16 ``[N, C, H, W]``, since
            NumPy does not have that type.

    Raises:
        BadInput: if the file is no such array, or is shorter than its header says.
    """

    def __init__(
        self,
        path: Path,
        channels_first: bool = False,
        to_bytes: ToBytes | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.path = path
        self.channels_first = channels_first
        self.to_bytes = to_bytes
        self.bfloat16 = bfloat16
        shape, self.stored, self.offset = self._checked_header()
        self.count = shape[0]
        self.row = shape[1:]
        if path.stat().st_size < self.offset + self.count * self._row_bytes():
            raise BadInput(f"{path} ends before the last of its {self.count} images.")
        self.dtype = torch.uint8 if self._holds_pixels else torch.float32
        self.shape = self._as_channels_first(np.empty((1, *self.row), self.stored)).shape[1:]

    @property
    def _holds_pixels(self) -> bool:
        return self.stored == np.uint8 or self.to_bytes is not None

    def _checked_header(self) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape, type and beginning of the array.

        Raises:
            BadInput: if it holds neither pixels nor latents in C order.
        """
        shape, is_fortran, stored, offset = read_header(self.path)
        is_pixels = (stored == np.uint8 or self.to_bytes is not None) and len(shape) in (3, 4)
        is_float = stored == np.uint16 if self.bfloat16 else stored.kind == "f"
        is_latents = is_float and len(shape) == 4
        if shape and not shape[0]:
            raise BadInput(f"{self.path} holds no images: its shape is {list(shape)}.")
        if is_fortran and (is_pixels or is_latents):
            raise BadInput(
                f"{self.path} is stored in Fortran order; save numpy.ascontiguousarray(images)."
            )
        if not (is_pixels or is_latents) or min(shape) < 1:
            raise BadInput(
                f"{self.path} holds {stored}{list(shape)}; give uint8 [N, H, W] or [N, H, W, C] "
                "for images, or floating point [N, C, H, W] for latents."
            )
        return shape, stored, offset

    def _row_bytes(self) -> int:
        return math.prod(self.row) * self.stored.itemsize

    def window(self, start: int, stop: int) -> NDArray[Any]:
        """Images ``start .. stop - 1`` as the file stores them, viewed as ``[n, C, H, W]``."""
        offset = self.offset + start * self._row_bytes()
        shape = (stop - start, *self.row)
        rows = self._as_channels_first(np.memmap(self.path, self.stored, "r", offset, shape))
        if self.to_bytes is not None:
            return self.to_bytes(rows)
        return (rows.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else rows

    def _as_channels_first(self, rows: NDArray[Any]) -> NDArray[Any]:
        if rows.ndim == 3:
            return rows[:, None]
        if self._holds_pixels and not self.channels_first:
            return rows.transpose(0, 3, 1, 2)
        return rows


class MappedRows:
    """The images of ``.npy`` files, one file after the other, viewed as a tensor ``[N, C, H, W]``.

    Args:
        files: the files. Grey images become colour where other files hold colour.
        order: indices of the images among those of all files, int64 ``[N]``. By default all of
            them, in their order.
        normalisation: shift and scale of each channel of latents, ``[C, 1, 1]`` each; what is read
            is ``(stored - shift) * scale``.
    """

    def __init__(
        self,
        files: Sequence[MappedFile],
        order: Tensor | None = None,
        normalisation: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.files = files
        self.order = order
        self.normalisation = normalisation
        self.ends = np.cumsum([file.count for file in files])
        count = int(self.ends[-1]) if order is None else len(order)
        channels = max(file.shape[0] for file in files)
        self.shape = torch.Size((count, channels, *files[0].shape[1:]))
        self.dtype = files[0].dtype

    def at(self, rows: Tensor) -> "MappedRows":
        """A selection of the images, or all of them in another order, without reading them.

        Args:
            rows: indices, int64 ``[n]``, or a mask, bool ``[N]``.
        """
        order = torch.arange(len(self)) if self.order is None else self.order
        return MappedRows(self.files, order[rows], self.normalisation)

    def normalised(self, shift: Sequence[float], scale: Sequence[float]) -> "MappedRows":
        """The same images with another shift and scale of each channel instead of their own."""
        both = (torch.tensor(shift)[:, None, None], torch.tensor(scale)[:, None, None])
        return MappedRows(self.files, self.order, both)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Tensor | int) -> Tensor:
        """Reads images: ``[n, C, H, W]`` for a slice or a tensor, one image for a number."""
        if isinstance(index, int):
            return self[torch.tensor([range(len(self))[index]])][0]
        rows = self._stored(index)
        if self.normalisation is not None:
            shift, scale = self.normalisation
            rows.sub_(shift).mul_(scale)
        return rows

    def _stored(self, index: slice | Tensor) -> Tensor:
        if isinstance(index, Tensor):
            return self._gathered(self._places(index))
        start, stop, step = index.indices(len(self))
        stop = max(start, stop)
        if self.order is not None:
            return self._gathered(self.order[start:stop:step].numpy())
        return self._read(start, stop)[::step].contiguous()

    def _places(self, index: Tensor) -> NDArray[np.int64]:
        """Indices among the images of all files."""
        rows = torch.arange(len(self))[index] if self.order is None else self.order[index]
        return rows.numpy()

    def _gathered(self, places: NDArray[np.int64]) -> Tensor:
        """Single images, each through a window of its own."""
        rows = self._empty(len(places))
        files = np.searchsorted(self.ends, places, side="right")
        for row, place, number in zip(rows.numpy(), places.tolist(), files.tolist(), strict=True):
            file = self.files[number]
            within = place - int(self.ends[number]) + file.count
            row[:] = file.window(within, within + 1)[0]
        return rows

    def _read(self, start: int, stop: int) -> Tensor:
        """Images ``start .. stop - 1`` of all files, a window for each file."""
        rows = self._empty(stop - start)
        first = 0
        for file in self.files:
            low = max(start, first)
            high = min(stop, first + file.count)
            if low < high:
                rows.numpy()[low - start : high - start] = file.window(low - first, high - first)
            first += file.count
        return rows

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, *self.shape[1:], dtype=self.dtype)
