"""Images that are arrays already: the digits of scikit-learn, ``.npz`` and ``.npy`` files.

Bytes are taken as they are; other numbers become bytes by a range that is measured or given.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import NumberedLabels, numbered
from multistage_diffusion.data.mapped import BAD_HEADER, MappedFile, MappedRows, read_header
from multistage_diffusion.data.options import Layout, ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.data.pillow import DAMAGE
from multistage_diffusion.data.sources.array_names import choose_arrays
from multistage_diffusion.data.sources.source import Option, Source
from multistage_diffusion.data.value_range import ToBytes, find_range, measure
from multistage_diffusion.errors import BadInput
from multistage_diffusion.memory import check_memory

__all__ = ["DIGITS", "NPY", "NPZ", "layout_of", "resized"]

DIGITS_NAME = "digits"
MOST_CHANNELS = 16
BLOCK_VALUES = 1 << 22
ARRAY_OPTIONS: frozenset[Option] = frozenset({"layout", "value_range", "latents"})


def load_digits() -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8, grey."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    classes = tuple(str(name) for name in bunch.target_names)
    return Images(torch.from_numpy(grey)[:, None], labels, classes, DIGITS_NAME)


def load_npy(path: Path, options: ReadOptions) -> Images:
    """Images or latents that are read in parts."""
    shape, _, stored, _ = read_header(path)
    if options.latents:
        _check_latents(stored, str(path))
        return Images(MappedRows([MappedFile(path)]), source=str(path))
    to_bytes: ToBytes | None = None
    notes: tuple[str, ...] = ()
    if len(shape) in (3, 4) and stored != np.uint8:
        to_bytes, notes = _conversion(_open_array(path), options, str(path))
    is_first = len(shape) == 4 and layout_of(shape, options.layout, str(path)) == "channels-first"
    _check_grey(shape, options.layout, str(path))
    file = MappedFile(path, is_first, to_bytes=to_bytes)
    return Images(MappedRows([file]), source=str(path), notes=notes)


def _check_latents(stored: np.dtype[Any], where: str) -> None:
    if stored.kind != "f":
        raise BadInput(f"{where} holds {stored}; latents are floating point: leave out --latents.")


def _open_array(path: Path) -> NDArray[Any]:
    """An array of a file that is read when needed."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error


def _conversion(
    array: NDArray[Any], options: ReadOptions, where: str
) -> tuple[ToBytes, tuple[str, ...]]:
    """How numbers of another type become bytes, and a note about it.

    Raises:
        BadInput: if they are no numbers, or not those of images.
    """
    if array.dtype.kind not in "fiub":
        raise BadInput(
            f"{where} holds {array.dtype}{list(array.shape)}; give uint8 [N, H, W] or "
            "[N, H, W, C] for images, or floating point."
        )
    rows = max(1, BLOCK_VALUES // max(1, math.prod(array.shape[1:])))
    blocks = (array[start : start + rows] for start in range(0, len(array), rows))
    measured = measure(blocks, where)
    to_bytes = find_range(array.dtype, measured, options, where)
    note = (
        f"values of {array.dtype} from {measured.least:.4g} to {measured.most:.4g} were rounded to "
        f"8 bits: {to_bytes.black:g}..{to_bytes.white:g} became 0..255"
    )
    return to_bytes, (note,)


def layout_of(shape: tuple[int, ...], given: Layout | None, where: str) -> Layout:
    """Where the channels of an array of images are.

    There are at most 16 of them and no more than an image has rows and columns. Where that leaves
    a doubt, images are square.

    Args:
        shape: four sizes, the first of them the number of images.
        given: what the user says.
        where: the array, for messages.

    Raises:
        BadInput: if the sizes leave a doubt.
    """
    if given is not None:
        return given
    _, first, middle, last = shape
    is_first = _may_be_channels(first, (middle, last))
    is_last = _may_be_channels(last, (first, middle))
    if is_first == is_last:
        is_first, is_last = middle == last, first == middle
    if is_first == is_last:
        raise BadInput(
            f"{where} is {list(shape)}: {first} channels of {middle}x{last}, or {last} channels of "
            f"{first}x{middle}? Give --layout channels-first or channels-last."
        )
    return "channels-first" if is_first else "channels-last"


def _may_be_channels(count: int, sides: tuple[int, int]) -> bool:
    """Whether a size is a number of channels: fewer than rows and columns, except 1 and 3."""
    most = min(sides) if count in (1, 3) else min(sides) * 2 // 3
    return count <= min(most, MOST_CHANNELS)


def _check_grey(shape: tuple[int, ...], given: Layout | None, where: str) -> None:
    """Raises BadInput about three sizes that are rather those of one image in colour."""
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) > 4 and given is None:
        count, height, width = shape
        raise BadInput(
            f"{where} is {list(shape)}: {count} grey images of {height}x{width}, or one image of "
            f"{width} channels? Store it as [1, {count}, {height}, {width}] for one, or as "
            f"[{count}, {height}, {width}, 1] for {count}."
        )


def load_npz(path: Path, options: ReadOptions) -> Images:
    """Images and, if there are any, their labels.

    Raises:
        BadInput: if the file cannot be read or holds something else.
    """
    notes: tuple[str, ...] = ()
    with _opened(path) as archive:
        chosen = choose_arrays(archive.files, str(path), options)
        images = _array(archive, chosen.images, path)
        labels = _array(archive, chosen.labels, path) if chosen.labels else None
    where = str(path)
    if images.ndim not in (3, 4) or images.dtype.kind not in "fiub":
        raise BadInput(
            f"{where} needs an array 'images', uint8 [N, H, W] or [N, H, W, C]; {chosen.images} is "
            f"{images.dtype}{list(images.shape)}."
        )
    if options.latents:
        _check_latents(images.dtype, where)
        stored = torch.from_numpy(images.astype(np.float32))
    else:
        _check_grey(images.shape, options.layout, where)
        stored, notes = _as_pixels(images, options, where)
    said = (*chosen.notes, *notes)
    if labels is None:
        return Images(stored, source=where, notes=said)
    found, about = _labels_of(labels, len(images), f"{where} {chosen.labels}")
    return Images(
        stored,
        found.labels,
        found.classes,
        where,
        (*said, *about, *found.notes),
        class_numbers=found.numbers,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except BadInput:
        raise
    except (*DAMAGE, *BAD_HEADER) as error:
        raise BadInput(f"Cannot read {path}: {' '.join(str(error).split())}.") from error


def _array(archive: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except (*DAMAGE, *BAD_HEADER) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"Cannot read the array {name} of {path}: {reason}.") from error


def _as_pixels(
    images: NDArray[Any], options: ReadOptions, where: str
) -> tuple[Tensor, tuple[str, ...]]:
    """Images of any type as uint8 ``[N, C, H, W]``, and notes about it."""
    notes: tuple[str, ...] = ()
    if not len(images):
        raise BadInput(f"{where} holds no images: its shape is {list(images.shape)}.")
    if images.dtype != np.uint8:
        to_bytes, notes = _conversion(images, options, where)
        images = _converted(images, to_bytes)
    if images.ndim == 3:
        return torch.from_numpy(images)[:, None], notes
    if layout_of(images.shape, options.layout, where) == "channels-first":
        return torch.from_numpy(np.ascontiguousarray(images)), notes
    return _channels_first(images), notes


def _converted(images: NDArray[Any], to_bytes: ToBytes) -> Pixels:
    pixels = np.empty(images.shape, np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[:] = to_bytes(image)
    return pixels


def _channels_first(images: Pixels) -> Tensor:
    """Images ``[N, H, W, C]`` as ``[N, C, H, W]``, in the memory they have."""
    count, height, width, channels = images.shape
    flat = np.ascontiguousarray(images).reshape(count, -1)
    for row in flat:
        row[:] = row.reshape(height, width, channels).transpose(2, 0, 1).ravel()
    return torch.from_numpy(flat.reshape(count, channels, height, width))


def _labels_of(
    labels: NDArray[Any], count: int, where: str
) -> tuple[NumberedLabels, tuple[str, ...]]:
    """Labels as classes, and a note if they are not used."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and len(labels) == count:
        note = f"{where} {list(labels.shape)} is not one class for each image and is not used"
        return NumberedLabels(), (note,)
    if labels.dtype.kind == "f" and np.all(labels == np.floor(labels)):
        labels = labels.astype(np.int64)
    are_texts = labels.dtype.kind in "US"
    if labels.shape != (count,) or not (labels.dtype.kind in "biu" or are_texts):
        raise BadInput(
            f"{where} needs 'labels' as {count} integers from 0, or names, "
            f"not {labels.dtype}{list(labels.shape)}."
        )
    values = _texts(labels) if are_texts else labels.tolist()
    names = [f"{where} {row}" for row in range(count)]
    return numbered(values, names), ()


def _texts(labels: NDArray[Any]) -> list[str]:
    """Names, which an array may hold as bytes; those that are not UTF-8 keep escapes."""
    names = labels.tolist()
    if labels.dtype.kind == "U":
        return names
    return [name.decode("utf-8", "backslashreplace") for name in names]


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
    shape = (len(images), images.shape[0], *size)
    check_memory(math.prod(shape), f"Resizing {images.source}", "give a smaller --size")
    pixels = torch.empty(shape, dtype=torch.uint8)

    def fit(row: int) -> None:
        array = images.pixels[row].permute(1, 2, 0).numpy()
        pixels.numpy()[row] = fitted(array, size, options.fit).transpose(2, 0, 1)

    for _ in in_order(fit, range(len(images))):
        pass
    return replace(images, pixels=pixels, original=images, resized=len(images))


DIGITS = Source(
    read=lambda _location, _options: load_digits(),
    accepts=lambda location: location.given == DIGITS_NAME and not location.paths,
    options=frozenset(),
)
NPZ = Source(
    read=lambda location, options: load_npz(location.paths[0], options),
    suffixes=(".npz",),
    options=ARRAY_OPTIONS | {"split", "image_key"},
)
NPY = Source(
    read=lambda location, options: load_npy(location.paths[0], options),
    suffixes=(".npy",),
    options=ARRAY_OPTIONS,
)
