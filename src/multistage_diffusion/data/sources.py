"""Where images come from: a folder, a .npz, .npy or parquet file, or the digits that come with scikit-learn.

Whatever a person may have to mend in the data raises ``BadInput`` with the name of the file at fault.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.errors import BadInput

__all__ = ["load", "load_image"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
Pixels = NDArray[np.uint8]


def load(source: Path | str) -> Images:
    """Reads and decodes a whole data set.

    Args:
        source: ``digits`` for the 1,797 handwritten digits of scikit-learn (8x8, grey); a folder of images, whose
            subfolders, if it has any, are the labels; a ``.npz`` file with ``images`` ``[N, H, W]`` or ``[N, H, W, C]`` in uint8
            and, if wanted, ``labels`` ``[N]``; a ``.npy`` file with such images, or with latents as floating point
            ``[N, C, H, W]``, which is read in parts and may be larger than memory; or a ``.parquet`` file with a Hugging Face
            image column.

    Raises:
        BadInput: if there is nothing there, a file cannot be read, or sizes or channels differ between images.
    """
    path = Path(source)
    if str(source) == "digits":
        return _digits()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise BadInput(f"There is no folder or file {path} to read images from.")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".npy":
        return Images(MappedRows(path), source=str(path))
    if path.suffix == ".parquet":
        return _parquet(path)
    raise BadInput(f"{path} is not a data set this program reads: give a folder of images, a .npz, .npy or .parquet file.")


def _digits() -> Images:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return Images(torch.from_numpy(grey)[:, None], labels, tuple(str(n) for n in bunch.target_names), "digits")


def _folder(root: Path) -> Images:
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise BadInput(f"The folder {root} holds no images (looked for {', '.join(sorted(SUFFIXES))}).")
    pixels = _stack(len(files), ((str(file), _open(file)) for file in files))
    parents = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    if "" in parents or len(set(parents)) < 2:  # nothing to tell apart
        return Images(pixels, source=str(root))
    return Images(pixels, *_numbered(parents), source=str(root))


def _numbered(names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    classes = sorted(set(names))
    number = {name: index for index, name in enumerate(classes)}
    return torch.tensor([number[name] for name in names]), tuple(classes)


def _npz(path: Path) -> Images:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items()) or "nothing"
        raise BadInput(f"{path} needs an array 'images', uint8 [N, H, W] or [N, H, W, C]; it holds {found}.")
    pixels = _channels_first(images)
    if "labels" not in arrays:
        return Images(pixels, source=str(path))
    return Images(pixels, *_integer_labels(arrays["labels"], len(pixels), str(path)), source=str(path))


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
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or (count and labels.min() < 0):
        raise BadInput(f"{where} needs 'labels' as {count} integers from 0, not {labels.dtype}{list(labels.shape)}.")
    values = torch.from_numpy(labels.astype(np.int64))
    return values, tuple(str(k) for k in range(int(values.max()) + 1 if count else 0))


def _parquet(path: Path) -> Images:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        features = datasets.Features.from_arrow_schema(file.schema_arrow)
        image = next((name for name, f in features.items() if isinstance(f, datasets.Image)), None)
        label = next((name for name, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
        if image is None:
            raise BadInput(f"{path} has no column with the Hugging Face image feature; its columns are {list(features)}.")
        pixels = _stack(file.metadata.num_rows, _parquet_images(path, file, image))
        if label is None:
            return Images(pixels, source=str(path))
        labels = file.read(columns=[label])[label].to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    return Images(pixels, torch.tensor(labels), tuple(features[label].names), str(path))


def _parquet_images(path: Path, file: Any, column: str) -> Iterator[tuple[str, Pixels]]:
    """The images of a column with their names, decoded one at a time."""
    import datasets

    decode = datasets.Image().decode_example
    cells = (cell for batch in file.iter_batches(256, columns=[column]) for cell in batch.column(0).to_pylist())
    for row, cell in enumerate(cells):
        where = f"{path} row {row}"
        yield where, _decoded(decode, cell, where)


def load_image(file: Path) -> Tensor:
    """One image file as uint8 ``[C, H, W]``.

    Raises:
        BadInput: if it cannot be decoded or has other than one or three 8-bit channels.
    """
    return torch.from_numpy(_open(file).copy()).permute(2, 0, 1)


def _open(file: Path) -> Pixels:
    return _decoded(Image.open, file, str(file))


def _decoded(decode: Any, stored: Any, where: str) -> Pixels:
    """An image as uint8 ``[H, W, C]`` with one or three channels."""
    try:
        with decode(stored) as image:
            image.load()
            return _channels(image, where)
    except (OSError, UnidentifiedImageError, SyntaxError, TypeError) as error:
        raise BadInput(f"Cannot decode the image {where}: {error}.") from error


def _channels(image: Image.Image, where: str) -> Pixels:
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "P" and "transparency" not in image.info:
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB"):
        raise BadInput(f"{where} has the colour mode {image.mode}; convert it to 8-bit grey (L) or RGB.")
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _stack(count: int, named: Iterator[tuple[str, Pixels]]) -> Tensor:
    """``count`` images as one uint8 tensor ``[N, C, H, W]``, filled as they come; the first that differs in shape is named."""
    stacked = np.empty(0, np.uint8)
    first, size = "", ""
    for row, (where, pixels) in enumerate(named):
        if row == 0:
            first, size = where, _size(pixels)
            stacked = np.empty((count, pixels.shape[2], *pixels.shape[:2]), np.uint8)
        if _size(pixels) != size:
            raise BadInput(f"{where} is {_size(pixels)}, but {first} is {size}: all images must agree.")
        stacked[row] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(stacked)


def _size(pixels: Pixels) -> str:
    height, width, channels = pixels.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
