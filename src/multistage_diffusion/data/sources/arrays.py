"""Images that are arrays already: the digits of scikit-learn, ``.npz`` and ``.npy`` files."""

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
from multistage_diffusion.data.mapped import MappedFile, MappedRows
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.parallel import in_order
from multistage_diffusion.errors import BadInput

__all__ = ["load_digits", "load_npy", "load_npz", "resized"]


def load_digits() -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8, grey."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    return Images(
        torch.from_numpy(grey)[:, None], labels, tuple(str(n) for n in bunch.target_names), "digits"
    )


def load_npy(path: Path) -> Images:
    """Images or latents that are read in parts."""
    return Images(MappedRows([MappedFile(path)]), source=str(path))


def load_npz(path: Path) -> Images:
    """The arrays ``images`` and, if there is one, ``labels``.

    Raises:
        BadInput: if the file cannot be read or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = (
            ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items()) or "nothing"
        )
        raise BadInput(
            f"{path} needs an array 'images', uint8 [N, H, W] or [N, H, W, C]; it holds {found}."
        )
    pixels = _channels_first(images)
    if "labels" not in arrays:
        return Images(pixels, source=str(path))
    return Images(
        pixels, *_integer_labels(arrays["labels"], len(pixels), str(path)), source=str(path)
    )


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
        raise BadInput(
            f"{where} needs 'labels' as {count} integers from 0, not "
            f"{labels.dtype}{list(labels.shape)}."
        )
    values = torch.from_numpy(labels.astype(np.int64))
    return values, tuple(str(k) for k in range(int(values.max()) + 1 if count else 0))


def resized(images: Images, options: ReadOptions) -> Images:
    """Images of the size that is asked for.

    Raises:
        BadInput: if they are latents, which have no pixels to resample.
    """
    size = options.height_and_width
    if size is None or size == images.shape[1:]:
        return images
    if images.latent:
        raise BadInput(f"{images.source} holds latents, which cannot be resized; leave out --size.")
    pixels = torch.empty(len(images), images.shape[0], *size, dtype=torch.uint8)

    def fit(row: int) -> None:
        array = images.pixels[row].permute(1, 2, 0).numpy()
        pixels.numpy()[row] = fitted(array, size, options.fit).transpose(2, 0, 1)

    for _ in in_order(fit, range(len(images))):
        pass
    return replace(images, pixels=pixels)
