"""Images in a zip or tar archive, which is read without being unpacked."""

import contextlib
import io
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO
from zipfile import ZipFile, ZipInfo

from multistage_diffusion.data.formats import is_foreign, is_image_content
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.pillow import DAMAGE
from multistage_diffusion.data.sources.files import arrange
from multistage_diffusion.data.sources.left_out import LINKS, REPEATED, LeftOut, about_empty
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tars import TAR_SUFFIXES, TarIndex, tar_files, tar_index
from multistage_diffusion.errors import BadInput

__all__ = ["TAR", "ZIP"]

ENCRYPTED = 0x1  # bit of a member's flags
UTF8_NAME = 0x800
METHODS = {0, 8, 12, 14}  # stored, deflate, bzip2, LZMA
METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}


def list_zip(path: Path, options: ReadOptions) -> Listing:
    """The images in a zip archive, in the order of their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    members, folders, left_out = _members(path)
    with ZipFile(path) as archive:
        arranged = arrange(
            members,
            str(path),
            options,
            read=lambda name: _content(archive, members[name], path),
            is_image=lambda name: _is_image(archive, members[name], path),
            before=left_out,
        )
    used = (*arranged.labels, *arranged.label_files)
    _check_readable(path, {name: members[name] for name in used})
    return Listing(
        entries=partial(_zip_entries, path, arranged.labels, members),
        source=str(path),
        count=partial(len, arranged.labels),
        identity=partial(stamps, [path]),
        notes=(*arranged.notes, *about_empty(without_files(folders, members))),
        left_out=arranged.left_out,
    )


def _members(path: Path) -> tuple[dict[str, ZipInfo], list[str], tuple[LeftOut, ...]]:
    """The files of an archive by their names, its folders, and links and names that repeat."""
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
    except UnicodeDecodeError as error:
        raise BadInput(
            f"Cannot read {path}: a name in it, {error.object!r}, is not UTF-8 but marked as "
            "UTF-8; pack it again."
        ) from error
    except DAMAGE as error:
        raise BadInput(f"Cannot read {path}: {_one_line(error)}.") from error
    members: dict[str, ZipInfo] = {}
    repeated, links = list[str](), list[str]()
    for info in (info for info in infos if not _is_folder(info)):
        name = _name(info)
        if stat.S_ISLNK(info.external_attr >> 16):
            links.append(name)
            continue
        if name in members:
            repeated.append(name)
        members[name] = info
    folders = [_name(info) for info in infos if _is_folder(info)]
    left_out = (LeftOut(LINKS, tuple(links)), LeftOut(REPEATED, tuple(repeated)))
    return members, folders, tuple(entry for entry in left_out if entry.names)


def without_files(folders: Iterable[str], files: Iterable[str]) -> list[str]:
    """The folders of an archive in which nothing lies, without those of other programs."""
    named = {PurePosixPath(folder) for folder in folders}
    own = (PurePosixPath(file) for file in files if not is_foreign(file))
    parents = {parent for path in (*named, *own) for parent in path.parents}
    return sorted(str(path) for path in named - parents if not is_foreign(str(path)))


def _is_folder(info: ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _name(info: ZipInfo) -> str:
    """The name of a file, its parts separated by ``/``.

    Older programs for Windows write backslashes, and some for Unix write UTF-8 without saying so,
    which then is read as the characters of code page 437.
    """
    name = info.filename.replace("\\", "/")
    if not info.flag_bits & UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.removeprefix("./").lstrip("/")


def _check_readable(path: Path, members: Mapping[str, ZipInfo]) -> None:
    """Raises BadInput about the first file that is encrypted or packed in an unknown way."""
    for name, info in members.items():
        if info.flag_bits & ENCRYPTED:
            raise BadInput(
                f"{path}/{name} is encrypted; unpack the archive and give the folder, or pack it "
                "again without a password."
            )
        if info.compress_type not in METHODS:
            method = METHOD_NAMES.get(info.compress_type, "an unknown method")
            raise BadInput(
                f"{path}/{name} is packed by {method} (compression method {info.compress_type}), "
                "which cannot be read; pack it again with deflate, or unpack it."
            )


def _content(archive: ZipFile, info: ZipInfo, path: Path) -> bytes:
    """The content of a file that is needed to read the others."""
    _check_readable(path, {info.filename: info})
    try:
        return archive.read(info)
    except DAMAGE as error:
        raise BadInput(f"Cannot read {path}/{info.filename}: {_one_line(error)}.") from error


def _is_image(archive: ZipFile, info: ZipInfo, path: Path) -> bool:
    """Whether a file is an image by its content.

    Raises:
        BadInput: if that cannot be known of a file without a suffix.
    """
    name = _name(info)
    if not PurePosixPath(name).suffix:
        _check_readable(path, {name: info})
    try:
        with archive.open(info) as file:
            return is_image_content(file)
    except DAMAGE:
        return False


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def _zip_entries(
    path: Path, labels: Mapping[str, Label], members: Mapping[str, ZipInfo]
) -> Iterator[Entry]:
    archive = ZipFile(path)  # stays open until its last image was read
    lock = Lock()
    for name, label in labels.items():
        opened = partial(_open_zipped, archive, lock, members[name])
        yield Entry(name, f"{path}/{name}", opened, label)


def _open_zipped(archive: ZipFile, lock: Lock, info: ZipInfo) -> IO[bytes]:
    with lock:
        content = archive.read(info)
    return io.BytesIO(content)


def list_tar(path: Path, options: ReadOptions) -> Listing:
    """The images in a tar archive, compressed or not.

    They are read in the order of the archive and then sorted by their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    index = tar_index(path)
    arranged = arrange(
        index.files,
        str(path),
        options,
        read=lambda name: _tar_content(path, name, index),
        is_image=lambda name: name in index.images,
        before=index.left_out,
    )
    return Listing(
        entries=partial(_tar_entries, path, arranged.labels, index),
        source=str(path),
        count=partial(len, arranged.labels),
        identity=partial(stamps, [path]),
        by_name=True,
        notes=(*arranged.notes, *about_empty(without_files(index.folders, index.files))),
        left_out=arranged.left_out,
    )


def _tar_content(path: Path, name: str, index: TarIndex) -> bytes:
    number = index.files[name]
    return next(content for _, content in tar_files(path, lambda _, found: found == number))


def _tar_entries(path: Path, labels: Mapping[str, Label], index: TarIndex) -> Iterator[Entry]:
    numbers = {index.files[name] for name in labels}
    for name, content in tar_files(path, lambda _, number: number in numbers):
        yield Entry(name, f"{path}/{name}", partial(io.BytesIO, content), labels[name])


ZIP = Source(
    read=lambda location, options: list_zip(location.paths[0], options),
    suffixes=(".zip",),
    options=frozenset({"labels", "label_column", "split"}),
)
TAR = Source(
    read=lambda location, options: list_tar(location.paths[0], options),
    suffixes=TAR_SUFFIXES,
    options=frozenset({"labels", "label_column", "split"}),
)
