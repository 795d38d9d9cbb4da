"""Folders of latents as ``multistage encode`` writes them.

In such a folder are

- shards, ``00000.npy`` and so on, ``[n, C, H, W]``, raw latents; with mirrored copies also
  ``00000-mirrored.npy``, the latents of the same images mirrored left-right;
- ``encoding.json``, what identifies them, which is written first (``Encoding``);
- ``00000.json`` and so on, the sums of a shard, which is complete when this file is there;
- ``latents.json``, labels and statistics, which is written last (``LatentIndex``).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from multistage_diffusion.config import read_config
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import MappedFile, MappedRows
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.errors import BadInput
from multistage_diffusion.space import AutoencoderInfo, LatentConfig

__all__ = [
    "ENCODING",
    "INDEX",
    "LATENT_FOLDER",
    "Encoding",
    "LatentIndex",
    "StoredType",
    "normalised",
    "read_encoding",
    "read_latents",
    "shard_path",
]

ENCODING = "encoding.json"
INDEX = "latents.json"
StoredType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What identifies latents: images, autoencoder, and how they were encoded and stored."""

    data: str
    """Fingerprint of the images."""
    path: str
    """Where they were read from."""
    images: int
    image_shape: tuple[int, int, int]
    autoencoder: AutoencoderInfo
    posterior: Literal["mean", "sample"]
    mirrored: bool
    stored: StoredType
    seed: int
    shard_images: int
    """Images in each shard except the last."""
    reading: dict[str, Any]
    """How the images were read."""
    version: Literal[1] = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the latents."""
        factor = self.autoencoder.factor
        _, height, width = self.image_shape
        return self.autoencoder.channels, height // factor, width // factor

    @property
    def shards(self) -> int:
        """Their number."""
        return -(-self.images // self.shard_images)


@dataclass(frozen=True, kw_only=True)
class LatentIndex:
    """Everything else about latents."""

    fingerprint: str
    """A hash of all shards and labels."""
    labels: list[int] | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Of each channel, as stored."""
    deviation: tuple[float, ...]
    """Standard deviation of each channel, as stored."""
    rounding: float
    """Root mean square of what storing changed, relative to that of the latents."""
    psnr: float | None
    """Peak signal-to-noise ratio of decoded images, dB; None if nothing is lost."""


def shard_path(folder: Path, number: int, mirrored: bool = False) -> Path:
    """The file of a shard."""
    return folder / f"{number:05d}{'-mirrored' if mirrored else ''}.npy"


def read_encoding(folder: Path) -> Encoding:
    """What identifies the latents of a folder.

    Raises:
        BadInput: if it is not a folder of latents.
    """
    return read_config(Encoding, folder / ENCODING)


def read_latents(folder: Path) -> Images:
    """The latents of a folder, with every channel normalised to mean 0 and deviation 1.

    Raises:
        BadInput: if encoding was not completed, or a file is missing.
    """
    encoding = read_encoding(folder)
    if not (folder / INDEX).exists():
        raise BadInput(f"{folder} is not complete: give the same multistage encode command again.")
    index = read_config(LatentIndex, folder / INDEX)
    images = Images(
        _rows(folder, encoding, mirrored=False),
        None if index.labels is None else torch.tensor(index.labels),
        index.classes,
        str(folder),
        latents=LatentConfig(
            autoencoder=encoding.autoencoder,
            image_shape=encoding.image_shape,
            shift=index.mean,
            scale=tuple(1 / deviation if deviation > 0 else 1.0 for deviation in index.deviation),
            deviation=1.0,
        ),
        mirrored=_rows(folder, encoding, mirrored=True) if encoding.mirrored else None,
    )
    assert images.latents is not None
    return normalised(images, images.latents, index.fingerprint)


def _rows(folder: Path, encoding: Encoding, mirrored: bool) -> MappedRows:
    paths = [shard_path(folder, number, mirrored) for number in range(encoding.shards)]
    bits = encoding.stored == "bfloat16"
    return MappedRows([MappedFile(path, bfloat16=bits) for path in paths])


def normalised(images: Images, latents: LatentConfig, fingerprint: str | None = None) -> Images:
    """Latents with another normalisation instead of their own. They keep their fingerprint.

    Args:
        images: latents that are read from files.
        latents: the normalisation.
        fingerprint: theirs, if they do not know it.
    """
    assert isinstance(images.pixels, MappedRows)
    mirrored = images.mirrored
    if isinstance(mirrored, MappedRows):
        mirrored = mirrored.normalised(latents.shift, latents.scale)
    pixels = images.pixels.normalised(latents.shift, latents.scale)
    result = replace(images, pixels=pixels, latents=latents, mirrored=mirrored)
    # These cached properties would read all latents
    vars(result)["fingerprint"] = fingerprint or images.fingerprint
    vars(result)["standard_deviation"] = latents.deviation
    return result


def _is_latent_folder(location: Location) -> bool:
    return location.is_folder and (location.paths[0] / ENCODING).exists()


LATENT_FOLDER = Source(
    read=lambda location, _: read_latents(location.paths[0]),
    accepts=_is_latent_folder,
    options=frozenset(),
)
