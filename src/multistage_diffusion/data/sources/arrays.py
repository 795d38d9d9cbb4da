"""Images that are arrays already: the digits of scikit-learn, ``.npz`` and ``.npy`` files."""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import BAD_HEADER, MappedFile, MappedRows
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.errors import BadInput

__all__ = ["DIGITS", "NPY", "NPZ", "resized"]

DIGITS_NAME = "digits"
DAMAGED_ARCHIVE = (BadZipFile, EOFError, KeyError, RuntimeError, zlib.error)


def load_digits() -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8, grey."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    classes = tuple(str(name) for name in bunch.target_names)
    return Images(torch.from_numpy(grey)[:, None], labels, classes, DIGITS_NAME)


def load_npy(path: Path) -> Images:
    """Images or latents that are read in parts."""
    return Images(MappedRows([MappedFile(path)]), source=str(path))


def load_npz(path: Path) -> Images:
    """The arrays ``images`` and, if there is one, ``labels``.

    Raises:
        BadInput: if the file cannot be read or holds something else.
    """
    arrays = _arrays_of(path)
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise BadInput(
            f"{path} needs an array 'images', uint8 [N, H, W] or [N, H, W, C]; "
            f"it holds {_described(arrays)}."
        )
    pixels = _channels_first(images)
    if "labels" not in arrays:
        return Images(pixels, source=str(path))
    labels, classes = _integer_labels(arrays["labels"], len(pixels), str(path))
    return Images(pixels, labels, classes, source=str(path))


def _arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, *DAMAGED_ARCHIVE, *BAD_HEADER) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error


def _described(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Names, dtypes and shapes of arrays, for a message."""
    texts = [f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()]
    return ", ".join(texts) or "nothing"


def _channels_first(images: Pixels) -> Tensor:
    """Images ``[N, H, W]`` or ``[N, H, W, C]`` as ``[N, C, H, W]``, in the memory they have."""
    if images.ndim == 3:
        return torch.from_numpy(images)[:, None]
    count, height, width, channels = images.shape
    flat = np.ascontiguousarray(images).reshape(count, -1)
    for row in flat:
        row[:] = row.reshape(height, width, channels).transpose(2, 0, 1).ravel()
    return torch.from_numpy(flat.reshape(count, channels, height, width))


def _integer_labels(labels: NDArray[Any], count: int, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 ``[N]`` and the names of their classes, which are numbers."""
    fits = labels.shape == (count,) and labels.dtype.kind in "iu"
    if not fits or (count and labels.min() < 0):
        raise BadInput(
            f"{where} needs 'labels' as {count} integers from 0, "
            f"not {labels.dtype}{list(labels.shape)}."
        )
    values = torch.from_numpy(labels.astype(np.int64))
    classes = int(values.max()) + 1 if count else 0
    return values, tuple(str(number) for number in range(classes))


def resized(images: Images, options: ReadOptions) -> Images:
    """Images of the size that the options ask for, if they ask for one.

    Raises:
        BadInput: if they are latents, which have no pixels to resample.
    """
    size = options.height_and_width
    if size is None or size == images.shape[1:]:
        return images
    if not images.space.stores_pixels:
        raise BadInput(
            f"{images.source} holds {images.space.contents}, which cannot be resized; "
            "leave out --size."
        )
    pixels = torch.empty(len(images), images.shape[0], *size, dtype=torch.uint8)

    def fit(row: int) -> None:
        array = images.pixels[row].permute(1, 2, 0).numpy()
        pixels.numpy()[row] = fitted(array, size, options.fit).transpose(2, 0, 1)

    for _ in in_order(fit, range(len(images))):
        pass
    return replace(images, pixels=pixels, original=images)


DIGITS = Source(
    read=lambda _location, _options: load_digits(),
    accepts=lambda location: location.given == DIGITS_NAME,
    options=frozenset(),
)
NPZ = Source(
    read=lambda location, _: load_npz(location.paths[0]),
    suffixes=(".npz",),
    options=frozenset(),
)
NPY = Source(
    read=lambda location, _: load_npy(location.paths[0]),
    suffixes=(".npy",),
    options=frozenset(),
)
