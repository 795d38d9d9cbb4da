"""Latents as a network is to see them: encoded, cached and normalised."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from multistage_diffusion.config import to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.data.options import ReadOptions, reading_settings
from multistage_diffusion.data.sources.latents import normalised, read_latents
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import cache_folder, json_fingerprint
from multistage_diffusion.latents.autoencoder import Autoencoder
from multistage_diffusion.latents.encoding import (
    EncodeOptions,
    Progress,
    encode_images,
    encoding_of,
    no_progress,
)
from multistage_diffusion.latents.find import find_autoencoder, load_autoencoder
from multistage_diffusion.latents.pretrained import load_pretrained
from multistage_diffusion.run import one_at_a_time
from multistage_diffusion.space import LatentConfig

__all__ = [
    "LatentOptions",
    "as_model_sees",
    "cached_latents",
    "for_training",
    "in_memory",
    "raw_latents",
]

IN_MEMORY = 1 << 30  # bytes of latents that are read at once


@dataclass(frozen=True, kw_only=True)
class LatentOptions:
    """Whether a network works on latents, and how they are normalised."""

    autoencoder: str | None = None
    """Work on latents of the images: a name such as pca-f2c6, a folder or a hub id; see multistage
    encode, whose output folders are given as --data without this option."""
    normalise: Literal["channels", "raw"] = "channels"
    """Normalise every channel of the latents to mean 0 and the standard deviation that the
    preconditioning expects, or use them as the autoencoder returns them (raw)."""


def cached_latents(
    images: Images,
    autoencoder: str,
    path: str,
    reading: ReadOptions,
    mirrored: bool = False,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> Images:
    """The latents of images, from the cache if they are there.

    Args:
        images: pixels.
        autoencoder: as ``find_autoencoder`` takes it.
        path, reading: where and how the images were read.
        mirrored: whether mirrored copies are needed.
        progress, device: as for ``encode_images``.

    Raises:
        BadInput: if these are latents already, or as ``find_autoencoder``.
    """
    if not images.space.stores_pixels:
        raise BadInput(f"{path} holds latents already: leave out --autoencoder.")
    found = find_autoencoder(autoencoder, images)
    return _cached(images, found, path, reading, mirrored, progress, device)


def _cached(
    images: Images,
    autoencoder: Autoencoder,
    path: str,
    reading: ReadOptions,
    mirrored: bool = False,
    progress: Progress = no_progress,
    device: torch.device | str = "cpu",
) -> Images:
    options = EncodeOptions(mirrored=mirrored, stored="float32")
    encoding = encoding_of(images, autoencoder, options, path, reading_settings(reading))
    named = to_json(replace(encoding, path="", reading={}))
    name = re.sub(r"\W+", "-", Path(autoencoder.info.name).name).strip("-")
    folder = (reading.cache or cache_folder()) / f"latents-{name}-{json_fingerprint(named)}"
    with one_at_a_time(folder):
        encode_images(images, autoencoder, encoding, folder, progress, device)
    return read_latents(folder)


def for_training(images: Images, deviation: float, normalise: str) -> Images:
    """Latents normalised for a network.

    Args:
        images: latents, every channel normalised to deviation 1.
        deviation: the standard deviation that the network's preconditioning expects.
        normalise: ``channels`` or ``raw``.
    """
    latents = images.latents
    assert latents is not None
    if normalise == "raw":
        chosen = _raw(latents)
    else:
        scale = tuple(value * deviation for value in latents.scale)
        chosen = replace(latents, scale=scale, deviation=deviation)
    return in_memory(normalised(images, chosen))


def _raw(latents: LatentConfig) -> LatentConfig:
    """Latents as they are, and the standard deviation of all their values."""
    mean = torch.tensor(latents.shift, dtype=torch.float64)
    variance = 1 / torch.tensor(latents.scale, dtype=torch.float64).square()
    total = variance.mean() + mean.var(correction=0)
    count = len(latents.shift)
    return replace(
        latents, shift=(0.0,) * count, scale=(1.0,) * count, deviation=float(total.sqrt())
    )


def in_memory(images: Images) -> Images:
    """Latents read at once if they are few, so that training never waits for them."""
    pixels, mirrored = images.pixels, images.mirrored
    size = pixels.shape.numel() * pixels.dtype.itemsize * (1 if mirrored is None else 2)
    if size > IN_MEMORY or not isinstance(pixels, MappedRows):
        return images
    copies = None if mirrored is None else mirrored[:]
    result = replace(images, pixels=pixels[:], mirrored=copies)
    vars(result)["fingerprint"] = images.fingerprint
    vars(result)["standard_deviation"] = images.standard_deviation
    return result


def raw_latents(autoencoder: str, shape: tuple[int, int, int], deviation: float) -> LatentConfig:
    """Latents as an autoencoder makes them, for a network of another program.

    Args:
        autoencoder: a folder or hub id.
        shape: of the latents.
        deviation: the standard deviation that the network takes them to have.

    Raises:
        BadInput: if there is no such autoencoder, or its latents have other channels.
    """
    name, _, revision = autoencoder.partition("@")
    found = load_pretrained(name, revision)
    channels, height, width = shape
    if found.info.channels != channels:
        raise BadInput(
            f"The latents of {autoencoder} have {found.info.channels} channels, the network is for "
            f"{channels}: give another --autoencoder."
        )
    factor = found.info.factor
    return LatentConfig(
        autoencoder=found.info,
        image_shape=(found.image_channels, height * factor, width * factor),
        shift=(0.0,) * channels,
        scale=(1.0,) * channels,
        deviation=deviation,
    )


def as_model_sees(
    images: Images, latents: LatentConfig | None, path: str, reading: ReadOptions
) -> Images:
    """Images or latents as the values that a model's network works on.

    Args:
        images: pixels, which are encoded for a latent model; or latents.
        latents: of the model; None for one that works on pixels.
        path, reading: where and how the images were read.

    Raises:
        BadInput: if the latents are of another autoencoder than the model's.
    """
    if latents is None:
        return images
    if images.space.stores_pixels:
        images = _cached(images, load_autoencoder(latents.autoencoder), path, reading)
    theirs = images.latents and images.latents.autoencoder.fingerprint
    if theirs != latents.autoencoder.fingerprint:
        raise BadInput(
            f"{path} holds latents of another autoencoder than the model's, which is "
            f"{latents.autoencoder.name}: give images, or latents encoded with it."
        )
    return in_memory(normalised(images, latents))
