"""Encoding a data set into a folder of latents; ``data.sources.latents`` describes its files.

A shard is a function of images, autoencoder and settings alone: an interrupted command that is
repeated, and several processes that share the shards, write the same files.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

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
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.latents.autoencoder import Autoencoder
from multistage_diffusion.latents.quality import reconstruction_psnr
from multistage_diffusion.latents.shards import NUMPY, ShardSums, sums_path, write_shard
from multistage_diffusion.run import claim

__all__ = ["EncodeOptions", "Progress", "Shards", "encode_images", "encoding_of", "no_progress"]

SHARD_BYTES = 64 << 20
Shards = Iterable[int]
"""Numbers of shards, from 0."""
Progress = Callable[[Shards, int], Shards]
"""Passes the numbers of shards through and may show progress; it is also given how many there are.
"""


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
    """What is stored of a variational encoder's distribution: its mean, or one sample of it."""
    mirrored: bool = True
    """Also encode each image mirrored left-right, for training with --flip."""
    stored: StoredType = "float16"
    """Type of the stored numbers; the rounding error is printed."""
    seed: int = setting(0, at_least=0)
    """Seed of the samples of the posterior."""


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
        raise BadInput(f"{path} holds latents already: give --data the images themselves.")
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
        progress: passes the numbers of the shards through, and may show progress.
        device: where the autoencoder runs.

    Raises:
        BadInput: if the folder holds other latents or other files, or values are too large for
            float16.
    """
    _begin(folder, encoding)
    missing = [n for n in range(encoding.shards) if not sums_path(folder, n).exists()]
    autoencoder.to(device)
    own = missing[distributed.rank() :: distributed.world_size()]
    for number in progress(own, len(own)):
        write_shard(images, autoencoder, encoding, folder, number, device)
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
    if distributed.is_main_process():
        for half_written in folder.glob(".[0-9]*"):
            half_written.unlink()
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


def _index(images: Images, encoding: Encoding, folder: Path, psnr: float | None) -> LatentIndex:
    numbers = range(encoding.shards)
    sums = [read_config(ShardSums, sums_path(folder, number)) for number in numbers]
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
