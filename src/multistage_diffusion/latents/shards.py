"""The shards of a folder of latents: they are encoded one after the other.

A shard is encoded in batches that begin with it, so that it is a function of images, autoencoder
and settings alone.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.config import to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import npy_header
from multistage_diffusion.data.sources.latents import Encoding, StoredType, shard_path
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically, write_json
from multistage_diffusion.latents.autoencoder import Autoencoder, encode

__all__ = ["NUMPY", "ShardSums", "sums_path", "write_shard"]

BATCH = 64
NUMPY: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
"""The stored types of numbers; numpy has no bfloat16, whose bits are stored."""
LARGEST_FLOAT16 = 65504


@dataclass(frozen=True)
class ShardSums:
    """Sums over the values of a shard, mirrored copies included."""

    fingerprint: str
    """A hash of the shard without its mirrored copy."""
    count: int
    """Number of values in each channel."""
    total: list[float]
    """Sum of the values of each channel."""
    squares: list[float]
    """Sum of the squares of the values of each channel."""
    rounding: float
    """Sum of the squared rounding errors of the stored values."""


def sums_path(folder: Path, number: int) -> Path:
    """The file of the sums of a shard, which is written last."""
    return folder / f"{number:05d}.json"


def write_shard(
    images: Images,
    autoencoder: Autoencoder,
    encoding: Encoding,
    folder: Path,
    number: int,
    device: torch.device | str,
) -> None:
    """Encodes a shard, and its mirrored copy if that is asked for, and writes both and their sums.

    Args:
        images: pixels.
        autoencoder: on the device.
        encoding: how the latents are made and stored.
        folder: of the latents.
        number: of the shard, from 0.
        device: where the autoencoder runs.

    Raises:
        BadInput: if values are not finite, or too large for float16.
    """
    start = number * encoding.shard_images
    rows = range(start, min(start + encoding.shard_images, len(images)))
    sums = []
    for mirrored in (False, True)[: 1 + encoding.mirrored]:
        values = _latents(images, autoencoder, encoding, rows, mirrored, device)
        sums.append(_write_values(shard_path(folder, number, mirrored), values, encoding.stored))
    _write_sums(sums_path(folder, number), sums)


def _latents(
    images: Images,
    autoencoder: Autoencoder,
    encoding: Encoding,
    rows: range,
    mirrored: bool,
    device: torch.device | str,
) -> Tensor:
    """The latents of some images: float32 ``[n, c, h, w]``, on the CPU."""
    parts = []
    for start in range(rows.start, rows.stop, BATCH):
        stop = min(start + BATCH, rows.stop)
        pixels = images.pixels[start:stop].to(device)
        posterior = encode(autoencoder, pixels.flip(3) if mirrored else pixels)
        mean = posterior.mean.cpu().float()
        if encoding.posterior == "sample" and posterior.deviation is not None:
            noise = [
                _noise(encoding.seed, 2 * row + mirrored, mean[0]) for row in range(start, stop)
            ]
            mean = mean + posterior.deviation.cpu().float() * torch.stack(noise)
        parts.append(mean)
    return torch.cat(parts)


def _noise(seed: int, number: int, like: Tensor) -> Tensor:
    drawn = np.random.default_rng((seed, number)).standard_normal(tuple(like.shape), np.float32)
    return torch.from_numpy(drawn)


def _write_values(path: Path, values: Tensor, stored: StoredType) -> ShardSums:
    """Writes the latents of a shard, and returns sums of them as they are stored."""
    if not values.isfinite().all():
        raise BadInput(
            f"The autoencoder returns values that are not finite, for {path}: it may be damaged; "
            "choose another --autoencoder."
        )
    if stored == "float16" and float(values.abs().max()) > LARGEST_FLOAT16:
        raise BadInput(
            "The latents have values that are too large for float16; give --stored bfloat16 or "
            "float32."
        )
    rounded = values.to(getattr(torch, stored))
    array = _as_numpy(rounded, stored)
    write_atomically(path, npy_header(array), array.data.cast("B"))
    exact, kept = values.double(), rounded.double()
    axes = (0, 2, 3)
    return ShardSums(
        hashlib.sha256(array.data).hexdigest()[:16],
        kept[:, 0].numel(),
        kept.sum(axes).tolist(),
        kept.square().sum(axes).tolist(),
        float((kept - exact).square().sum()),
    )


def _as_numpy(rounded: Tensor, stored: StoredType) -> NDArray[Any]:
    bits = rounded.view(torch.uint16) if stored == "bfloat16" else rounded
    return np.ascontiguousarray(bits.numpy(), NUMPY[stored])


def _write_sums(path: Path, parts: list[ShardSums]) -> None:
    """Writes the sums of a shard and its mirrored copy, which completes it.

    The fingerprint is that of the shard alone, so that mirrored copies do not change the
    fingerprint of the data.
    """
    together = ShardSums(
        parts[0].fingerprint,
        sum(part.count for part in parts),
        [sum(values) for values in zip(*(part.total for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.squares for part in parts), strict=True)],
        sum(part.rounding for part in parts),
    )
    write_json(path, to_json(together))
