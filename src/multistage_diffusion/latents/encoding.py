"""Encoding a data set into a folder of latents; ``data.sources.latents`` describes its files.

Shards are encoded one after the other, each in batches that begin with it, so that a shard is a
function of images, autoencoder and settings alone: an interrupted command that is repeated, and
several processes that share the shards, write the same files.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.config import Settings, read_config, setting, to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.sources.latents import (
    ENCODING,
    INDEX,
    Encoding,
    LatentIndex,
    StoredType,
    read_encoding,
    shard_path,
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically, write_json
from multistage_diffusion.latents.autoencoder import Autoencoder, encode
from multistage_diffusion.latents.quality import reconstruction_psnr
from multistage_diffusion.run import claim

__all__ = ["EncodeOptions", "Progress", "Shards", "encode_images", "encoding_of", "no_progress"]

SHARD_BYTES = 64 << 20
BATCH = 64
NUMPY: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
LARGEST_FLOAT16 = 65504

Shards = Iterable[int]
Progress = Callable[[Shards, int], Shards]


def no_progress(shards: Shards, _total: int) -> Shards:
    """The shards as they are."""
    return shards


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(Settings):
    """How latents are made and stored.

    Raises:
        BadInput: if the seed is negative.
    """

    posterior: Literal["mean", "sample"] = "mean"
    """Of a random encoder: the mean, or one sample of each image."""
    mirrored: bool = True
    """Encode each image mirrored left-right too, for training with --flip."""
    stored: StoredType = "float16"
    """Type of the numbers in the files; what rounding to it changes is printed."""
    seed: int = setting(0, at_least=0)
    """Samples of the posterior are a function of it."""


@dataclass(frozen=True)
class _ShardSums:
    """What is known about the values of a shard, mirrored copies included."""

    fingerprint: str
    count: int
    """Values in each channel."""
    total: list[float]
    """Of each channel."""
    squares: list[float]
    """Of each channel."""
    rounding: float
    """Sum of the squares of what storing changed."""


def encoding_of(
    images: Images,
    autoencoder: Autoencoder,
    options: EncodeOptions,
    path: str,
    reading: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> Encoding:
    """What identifies the latents of images.

    Args:
        images: pixels.
        autoencoder: makes the latents.
        options: how.
        path, reading: where and how the images were read.
        shard_bytes: size of a shard.

    Raises:
        BadInput: if these are latents already, or the autoencoder is for other images.
    """
    if not images.space.stores_pixels:
        raise BadInput(f"{path} holds latents already.")
    autoencoder.check(images.shape)
    channels, factor = autoencoder.info.channels, autoencoder.info.factor
    values = channels * images.shape[1] * images.shape[2] // factor**2
    rows = shard_bytes // (values * NUMPY[options.stored].itemsize)
    return Encoding(
        data=images.fingerprint,
        path=path,
        images=len(images),
        image_shape=images.shape,
        autoencoder=autoencoder.info,
        posterior=options.posterior,
        mirrored=options.mirrored,
        stored=options.stored,
        seed=options.seed,
        shard_images=max(1, rows),
        reading=reading,
    )


def encode_images(
    images: Images,
    autoencoder: Autoencoder,
    encoding: Encoding,
    folder: Path,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> LatentIndex:
    """Encodes what is missing of a folder of latents. All ranks call it and share the shards.

    Args:
        images: pixels.
        autoencoder: makes the latents.
        encoding: what identifies them; ``encoding_of``.
        folder: where they are written.
        progress: passes the numbers of the shards through, which are as many as it is told.
        device: where the autoencoder runs.

    Raises:
        BadInput: if the folder holds other latents or other files, or values are too large for
            float16.
    """
    _begin(folder, encoding)
    missing = [n for n in range(encoding.shards) if not _sums_path(folder, n).exists()]
    autoencoder.to(device)
    own = missing[distributed.rank() :: distributed.world_size()]
    for number in progress(own, len(own)):
        _write_shard(images, autoencoder, encoding, folder, number, device)
    distributed.barrier()
    if distributed.is_main_process() and not (folder / INDEX).exists():
        psnr = reconstruction_psnr(autoencoder, images, device)
        write_json(folder / INDEX, to_json(_index(images, encoding, folder, psnr)))
    autoencoder.to("cpu")
    distributed.barrier()
    return read_config(LatentIndex, folder / INDEX)


def _begin(folder: Path, encoding: Encoding) -> None:
    """Writes what the folder will hold, or checks that it holds the same."""
    claim(folder, "holds other files", lambda path: (path / ENCODING).exists(), folder=True)
    distributed.barrier()
    if not (folder / ENCODING).exists():
        if distributed.is_main_process():
            write_json(folder / ENCODING, to_json(encoding))
        return distributed.barrier()
    found = read_encoding(folder)
    distributed.barrier()
    _check_same(folder, found, encoding)


def _check_same(folder: Path, found: Encoding, wanted: Encoding) -> None:
    """Raises BadInput about the first difference that matters."""
    differences = {
        "of other images": found.data != wanted.data,
        "of another autoencoder": found.autoencoder.fingerprint != wanted.autoencoder.fingerprint,
        "encoded with other options": _options(found) != _options(wanted),
    }
    for words, differs in differences.items():
        if differs:
            raise BadInput(f"{folder} holds latents {words}; choose another --out or remove it.")


def _options(encoding: Encoding) -> tuple[object, ...]:
    seed = encoding.seed if encoding.posterior == "sample" else 0
    return encoding.posterior, encoding.mirrored, encoding.stored, seed, encoding.shard_images


def _sums_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _write_shard(
    images: Images,
    autoencoder: Autoencoder,
    encoding: Encoding,
    folder: Path,
    number: int,
    device: torch.device | str,
) -> None:
    start = number * encoding.shard_images
    rows = range(start, min(start + encoding.shard_images, len(images)))
    sums = []
    for mirrored in (False, True)[: 1 + encoding.mirrored]:
        values = _latents(images, autoencoder, encoding, rows, mirrored, device)
        sums.append(_write_values(shard_path(folder, number, mirrored), values, encoding.stored))
    _write_sums(_sums_path(folder, number), sums)


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


def _write_values(path: Path, values: Tensor, stored: StoredType) -> _ShardSums:
    """Writes the latents of a shard, and returns sums of them as they are stored."""
    if not values.isfinite().all():
        raise BadInput(f"The autoencoder gives values that are not finite, for {path}.")
    if stored == "float16" and float(values.abs().max()) > LARGEST_FLOAT16:
        raise BadInput(
            "The latents have values that are too large for float16; give --stored bfloat16 or "
            "float32."
        )
    rounded = values.to(getattr(torch, stored))
    array = _as_numpy(rounded, stored)
    write_atomically(path, _header(array), array.data.cast("B"))
    exact, kept = values.double(), rounded.double()
    axes = (0, 2, 3)
    return _ShardSums(
        hashlib.sha256(array.data).hexdigest()[:16],
        kept[:, 0].numel(),
        kept.sum(axes).tolist(),
        kept.square().sum(axes).tolist(),
        float((kept - exact).square().sum()),
    )


def _as_numpy(rounded: Tensor, stored: StoredType) -> NDArray[Any]:
    bits = rounded.view(torch.uint16) if stored == "bfloat16" else rounded
    return np.ascontiguousarray(bits.numpy(), NUMPY[stored])


def _header(array: NDArray[Any]) -> bytes:
    """The header of a ``.npy`` file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue()


def _write_sums(path: Path, parts: list[_ShardSums]) -> None:
    """Writes the sums of a shard and its mirrored copy, which completes it.

    The fingerprint is that of the shard alone, so that mirrored copies do not change that of the
    data.
    """
    together = _ShardSums(
        parts[0].fingerprint,
        sum(part.count for part in parts),
        [sum(values) for values in zip(*(part.total for part in parts), strict=True)],
        [sum(values) for values in zip(*(part.squares for part in parts), strict=True)],
        sum(part.rounding for part in parts),
    )
    write_json(path, to_json(together))


def _index(images: Images, encoding: Encoding, folder: Path, psnr: float | None) -> LatentIndex:
    numbers = range(encoding.shards)
    sums = [read_config(_ShardSums, _sums_path(folder, number)) for number in numbers]
    count = sum(part.count for part in sums)
    mean = torch.tensor([part.total for part in sums], dtype=torch.float64).sum(0) / count
    power = torch.tensor([part.squares for part in sums], dtype=torch.float64).sum(0) / count
    deviation = (power - mean.square()).clamp(min=0).sqrt()
    labels = None if images.labels is None else images.labels.tolist()
    content = json.dumps([[part.fingerprint for part in sums], labels])
    changed = sum(part.rounding for part in sums) / (count * len(mean))
    return LatentIndex(
        fingerprint=hashlib.sha256(content.encode()).hexdigest()[:16],
        labels=labels,
        classes=images.classes,
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
        rounding=float((changed / power.mean().clamp(min=1e-300)) ** 0.5),
        psnr=psnr,
    )
