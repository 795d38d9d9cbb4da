"""Tar archives, read from beginning to end."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from multistage_diffusion.data.formats import has_image_suffix, is_foreign, is_image_content
from multistage_diffusion.data.pillow import DAMAGE
from multistage_diffusion.data.sources.left_out import LINKS, REPEATED, LeftOut
from multistage_diffusion.errors import BadInput

__all__ = ["TAR_SUFFIXES", "TarIndex", "tar_files", "tar_index"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_BYTES = 1 << 30  # of a file that is read; headers may claim anything
BLOCK = 512
BEGIN_BYTES = 1 << 16  # tell what a file is
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # except these, whose directory may be at the end


@dataclass(frozen=True)
class TarIndex:
    """What an archive holds."""

    files: dict[str, int]
    """The names of its files, in its order, each with its number among the members. Of several
    files of one name, the last one counts."""
    folders: tuple[str, ...]
    images: frozenset[str]
    """Those that are images although their suffix does not say so."""
    left_out: tuple[LeftOut, ...]
    """Links, and files of which another one with the same name comes later."""


def tar_index(path: Path, sniff: bool = True) -> TarIndex:
    """Reads the headers of an archive.

    Args:
        path: the archive.
        sniff: whether to look into files whose suffix is not that of an image.

    Raises:
        BadInput: if it cannot be read to its end.
    """
    files: dict[str, int] = {}
    images, folders, links, repeated = set[str](), list[str](), list[str](), list[str]()
    with _opened(path, "r:*") as archive:  # can skip over contents
        for number, member in enumerate(archive):
            name = _name(member)
            if member.islnk() or member.issym():
                links.append(name)
            if member.isdir():
                folders.append(name)
            if not member.isfile():
                continue
            if name in files:
                repeated.append(name)
                del files[name]
            files[name] = number
            if sniff and not has_image_suffix(name) and not is_foreign(name):
                images |= {name} if _is_image(archive, member) else set()
        _check_end(archive, path)
    left_out = (LeftOut(LINKS, tuple(links)), LeftOut(REPEATED, tuple(repeated)))
    kept = tuple(entry for entry in left_out if entry.names)
    return TarIndex(files, tuple(folders), frozenset(images), kept)


def _is_image(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bool:
    content = archive.extractfile(member)
    if content is None or member.size > MOST_BYTES:
        return False
    begin = content.read(BEGIN_BYTES)
    if begin.startswith(TIFF):
        begin += content.read()
    return is_image_content(io.BytesIO(begin))


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """Raises BadInput if reading stopped before the end, as ``tarfile`` does at a damaged header.

    Zeros end an archive; nothing may follow, such as a second archive, since it would be lost.
    """
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    first = stream.read(BLOCK)
    if first.strip(b"\0") or 0 < len(first) < BLOCK:
        raise BadInput(
            f"Cannot read {path}: it is damaged at byte {archive.offset}, and what follows would "
            "be lost; pack it again."
        )
    while block := stream.read(1 << 20):
        if block.strip(b"\0"):
            raise BadInput(
                f"{path} holds more behind its end at byte {archive.offset}, such as a second "
                "archive; unpack both and pack them into one."
            )


def tar_files(
    path: Path, wanted: Callable[[str, int], bool] = lambda *_: True
) -> Iterator[tuple[str, bytes]]:
    """The files in an archive, each with its content, in its order.

    Args:
        path: the archive.
        wanted: whether a file of a name and a number among the members is read.

    Raises:
        BadInput: if it cannot be read, or a file claims to be larger than 1 GiB.
    """
    with _opened(path, "r|*") as archive:
        for number, member in enumerate(archive):
            name = _name(member)
            if not member.isfile() or not wanted(name, number):
                continue
            if member.size > MOST_BYTES:
                raise BadInput(
                    f"{path}/{name} claims to have {member.size:,} bytes, more than 1 GiB; remove "
                    "it or pack the archive again."
                )
            content = archive.extractfile(member)
            assert content is not None
            yield name, content.read()


def _name(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name.replace("\\", "/")).as_posix().lstrip("/")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            yield archive
    except BadInput:
        raise
    except (*DAMAGE, tarfile.TarError) as error:
        reason = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        raise BadInput(f"Cannot read {path}: {reason}.") from error
