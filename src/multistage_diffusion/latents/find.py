"""From the name of an autoencoder to the autoencoder."""

from functools import lru_cache
from pathlib import Path

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.sources.latents import ENCODING, read_encoding
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_object
from multistage_diffusion.latents.autoencoder import Autoencoder
from multistage_diffusion.latents.linear import IDENTITY, Identity, LinearPatches, is_linear
from multistage_diffusion.latents.pretrained import load_pretrained
from multistage_diffusion.latents.tiny import find_tiny
from multistage_diffusion.space import AutoencoderInfo

__all__ = ["find_autoencoder", "is_autoencoder", "load_autoencoder"]


def is_autoencoder(name: str) -> bool:
    """Whether a folder holds an autoencoder, or a name that is no folder is of linear patches."""
    folder = Path(name)
    config = folder / "config.json"
    if not folder.exists():
        return is_linear(name)
    of_diffusers = config.is_file() and "_class_name" in read_object(config)
    return of_diffusers or find_tiny(folder) is not None


def find_autoencoder(name: str, images: Images) -> Autoencoder:
    """The autoencoder that a user names, for images.

    Args:
        name: ``pca-f2c6`` or the like, which is fitted to the images; ``identity``; a folder of
            latents, whose autoencoder is used again; a folder or hub id as ``load_pretrained``
            takes them, with ``@revision`` after an id.
        images: the images that are to be encoded.

    Raises:
        BadInput: if there is none of that name, or it is for other images.
    """
    autoencoder = _named(name, images)
    autoencoder.check(images.shape)
    return autoencoder


def _named(name: str, images: Images) -> Autoencoder:
    if is_linear(name):
        return LinearPatches.fit(name, images)
    if name == IDENTITY:
        return Identity(images.shape[0])
    if (Path(name) / ENCODING).exists():
        return load_autoencoder(read_encoding(Path(name)).autoencoder)
    if Path(name).exists():
        return load_pretrained(name)
    identity, _, revision = name.partition("@")
    return load_pretrained(identity, revision)


@lru_cache(maxsize=2)
def load_autoencoder(info: AutoencoderInfo) -> Autoencoder:
    """The autoencoder that latents or a model were made with, on the CPU.

    Raises:
        BadInput: if it is no longer there, or has changed.
    """
    if is_linear(info.name):
        found: Autoencoder = LinearPatches.stored(info)
    elif info.name == IDENTITY:
        found = Identity(info.channels)
    else:
        found = load_pretrained(info.name, info.revision)
    if found.info.fingerprint != info.fingerprint:
        raise BadInput(
            f"The autoencoder {info.name} is another one than the latents were made with "
            f"(fingerprint {found.info.fingerprint}, not {info.fingerprint}): put the earlier one "
            "back, or encode and train again."
        )
    return found
