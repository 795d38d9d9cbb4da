"""Which files are images: all that Pillow can open, whatever their suffix."""

from functools import cache
from pathlib import PurePath
from typing import IO

from PIL import Image

from multistage_diffusion.data.pillow import DAMAGE, quiet

__all__ = ["has_image_suffix", "image_suffixes", "is_foreign", "is_image_content"]

# Formats that Pillow knows only by name, needs other programs for, or takes for almost anything
NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"})
# Formats without a signature at their beginning: a suffix is needed to tell them
WITHOUT_SIGNATURE = frozenset({"IM", "IMT", "MCIDAS", "PCD", "PIXAR", "SPIDER", "TGA", "XVTHUMB"})
FOREIGN_NAMES = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@tmp",
        "@__thumb",
        "@eadir@tmp",
        "@sharebin",
        "@synoeastream",
        "@synoresource",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "recycled",
        "network trash folder",
        "temporary items",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of image files, in small letters."""
    known = Image.registered_extensions()
    return frozenset(
        suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in NOT_READ
    ) | {".jfif", ".mpo"}


@cache
def _formats_with_signature() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - NOT_READ - WITHOUT_SIGNATURE))


def has_image_suffix(name: str) -> bool:
    """Whether the suffix of a path is that of an image."""
    return PurePath(name).suffix.lower() in image_suffixes()


def is_foreign(name: str) -> bool:
    """Whether a path inside a data set is hidden or belongs to another program.

    Such are ``._photo.jpg``, ``.thumbnails/``, ``@eaDir/``, ``__MACOSX/``, ``Thumbs.db``, the copy
    ``photo.png~`` of an editor and the lock ``~$photo.png`` of an office program.
    """
    return any(map(_is_foreign_part, PurePath(name).parts))


def _is_foreign_part(part: str) -> bool:
    hidden = part.startswith((".", "~$")) and part != ".."
    return hidden or part.endswith("~") or part.lower() in FOREIGN_NAMES


def is_image_content(file: IO[bytes]) -> bool:
    """Whether a file begins like an image that Pillow can open."""
    try:
        with quiet(), Image.open(file, formats=_formats_with_signature()):
            return True
    except DAMAGE:
        return False
