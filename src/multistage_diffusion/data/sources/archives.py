"""Images in a folder, or in a zip or tar archive, which is read without being unpacked."""

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from zipfile import BadZipFile, ZipFile

from PIL import Image

from multistage_diffusion.data.decoding import SUFFIXES, is_image
from multistage_diffusion.data.labels import LABELS_INSIDE, labels_for, read_labels_inside
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.tars import tar_files, tar_names
from multistage_diffusion.errors import BadInput

__all__ = ["from_bytes", "list_folder", "list_tar", "list_zip"]

Labels = Mapping[str, int | str]


def from_bytes(content: bytes) -> Image.Image:
    """Opens an image that was read already."""
    return Image.open(io.BytesIO(content))


def list_folder(root: Path) -> Listing:
    """The images in a folder and its subfolders, in the order of their paths.

    Raises:
        BadInput: if there are none.
    """
    files = {
        p.relative_to(root).as_posix(): p
        for p in root.rglob("*")
        if is_image(p.relative_to(root).as_posix()) and p.is_file()
    }
    names = _in_order(files, f"The folder {root}")
    inside = root / LABELS_INSIDE
    given = read_labels_inside(inside.read_bytes(), str(inside)) if inside.is_file() else None
    entries = [
        Entry(name, str(files[name]), partial(Image.open, files[name]), label)
        for name, label in zip(names, labels_for(names, given), strict=True)
    ]
    stamped = partial(
        stamps, [*(files[name] for name in names), *([inside] if given is not None else [])]
    )
    return Listing(
        lambda: entries, str(root), partial(len, names), stamped, notes=_notes(given, str(inside))
    )


def _in_order(names: Mapping[str, object] | list[str], where: str) -> list[str]:
    """Names in the order of their paths.

    Raises:
        BadInput: if there are none.
    """
    if not names:
        raise BadInput(f"{where} holds no images (looked for {', '.join(sorted(SUFFIXES))}).")
    return sorted(names, key=lambda name: PurePosixPath(name).parts)


def _notes(given: Labels | None, where: str) -> tuple[str, ...]:
    return (
        ()
        if given is None
        else (
            f"labels are those of {where}" if given else f"{where} says that there are no labels",
        )
    )


def list_zip(path: Path) -> Listing:
    """The images in a zip archive, in the order of their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    try:
        with ZipFile(path) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
            inside = archive.read(LABELS_INSIDE) if LABELS_INSIDE in files else None
    except (OSError, BadZipFile) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    names = _in_order([name for name in files if is_image(name)], str(path))
    given = None if inside is None else read_labels_inside(inside, f"{path}/{LABELS_INSIDE}")
    entries = partial(_zip_entries, path, dict(zip(names, labels_for(names, given), strict=True)))
    return Listing(
        entries,
        str(path),
        partial(len, names),
        partial(stamps, [path]),
        notes=_notes(given, f"{path}/{LABELS_INSIDE}"),
    )


def _zip_entries(path: Path, labels: Mapping[str, Label]) -> Iterator[Entry]:
    archive, lock = ZipFile(path), Lock()  # open until its last image was read
    for name, label in labels.items():
        yield Entry(name, f"{path}/{name}", partial(_from_zip, archive, lock, name), label)


def _from_zip(archive: ZipFile, lock: Lock, name: str) -> Image.Image:
    with lock:
        content = archive.read(name)
    return from_bytes(content)


def list_tar(path: Path) -> Listing:
    """The images in a tar archive, compressed or not; they come as they lie there and are put in the order of their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    files = tar_names(path)
    names = _in_order([name for name in files if is_image(name)], str(path))
    inside = (
        next((content for name, content in tar_files(path) if name == LABELS_INSIDE), None)
        if LABELS_INSIDE in files
        else None
    )
    given = None if inside is None else read_labels_inside(inside, f"{path}/{LABELS_INSIDE}")
    entries = partial(_tar_entries, path, dict(zip(names, labels_for(names, given), strict=True)))
    notes = _notes(given, f"{path}/{LABELS_INSIDE}")
    return Listing(
        entries, str(path), partial(len, names), partial(stamps, [path]), by_name=True, notes=notes
    )


def _tar_entries(path: Path, labels: Mapping[str, Label]) -> Iterator[Entry]:
    for name, content in tar_files(path):
        if name in labels:
            yield Entry(name, f"{path}/{name}", partial(from_bytes, content), labels[name])
