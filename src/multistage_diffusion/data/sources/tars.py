"""Tar archives, read from beginning to end."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from multistage_diffusion.errors import BadInput

__all__ = ["TAR_SUFFIXES", "tar_files", "tar_names"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def tar_names(path: Path) -> list[str]:
    """The names of the files in an archive, in its order.

    Raises:
        BadInput: if it cannot be read.
    """
    with _opened(path, "r:*") as archive:  # can skip over contents
        return [_name(member) for member in archive if member.isfile()]


def tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files in an archive, each with its content, in its order.

    Raises:
        BadInput: if it cannot be read.
    """
    with _opened(path, "r|*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                yield _name(member), content.read()


def _name(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).as_posix()


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            yield archive
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
