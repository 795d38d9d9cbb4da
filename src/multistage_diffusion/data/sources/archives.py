"""Images in a folder, or in a zip or tar archive, which is read without being unpacked."""

import io
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from zipfile import BadZipFile, ZipFile

from PIL import Image

from multistage_diffusion.data.decoding import SUFFIXES, is_image
from multistage_diffusion.data.labels import DATASET_JSON, labels_of, parse_labels
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tars import TAR_SUFFIXES, tar_files, tar_names
from multistage_diffusion.errors import BadInput

__all__ = ["FOLDER", "TAR", "ZIP", "open_bytes"]

Labels = Mapping[str, int | str]


def open_bytes(content: bytes) -> Image.Image:
    """Opens an image file whose content was read already."""
    return Image.open(io.BytesIO(content))


def list_folder(root: Path) -> Listing:
    """The images in a folder and its subfolders, in the order of their paths.

    Raises:
        BadInput: if there are none.
    """
    files = _image_files(root)
    names = _sorted(files, f"The folder {root}")
    labels_file = root / DATASET_JSON
    has_labels = labels_file.is_file()
    given = parse_labels(labels_file.read_bytes(), str(labels_file)) if has_labels else None
    labels = labels_of(names, given)
    entries = [
        Entry(name, str(files[name]), partial(Image.open, files[name]), label)
        for name, label in zip(names, labels, strict=True)
    ]
    stamped = [files[name] for name in names]
    if has_labels:
        stamped.append(labels_file)
    return Listing(
        entries=lambda: entries,
        source=str(root),
        count=partial(len, names),
        identity=partial(stamps, stamped),
        notes=_notes(given, str(labels_file)),
    )


def _image_files(root: Path) -> dict[str, Path]:
    """The image files below a folder, by their path inside it."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    return {name: path for name, path in files.items() if is_image(name) and path.is_file()}


def _sorted(names: Iterable[str], where: str) -> list[str]:
    """Names in the order of their paths.

    Raises:
        BadInput: if there are none.
    """
    ordered = sorted(names, key=lambda name: PurePosixPath(name).parts)
    if not ordered:
        raise BadInput(f"{where} holds no images (looked for {', '.join(sorted(SUFFIXES))}).")
    return ordered


def _notes(given: Labels | None, where: str) -> tuple[str, ...]:
    """What the user should know about labels that a data set brings along."""
    if given is None:
        return ()
    return (f"labels are those of {where}" if given else f"{where} says that there are no labels",)


def list_zip(path: Path) -> Listing:
    """The images in a zip archive, in the order of their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    try:
        with ZipFile(path) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
            content = archive.read(DATASET_JSON) if DATASET_JSON in files else None
    except (OSError, BadZipFile) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    names = _sorted(filter(is_image, files), str(path))
    given = _labels_inside(content, path)
    labels = dict(zip(names, labels_of(names, given), strict=True))
    return Listing(
        entries=partial(_zip_entries, path, labels),
        source=str(path),
        count=partial(len, names),
        identity=partial(stamps, [path]),
        notes=_notes(given, f"{path}/{DATASET_JSON}"),
    )


def _labels_inside(content: bytes | None, path: Path) -> Labels | None:
    """The labels in the ``dataset.json`` of an archive, if it has that file."""
    return None if content is None else parse_labels(content, f"{path}/{DATASET_JSON}")


def _zip_entries(path: Path, labels: Mapping[str, Label]) -> Iterator[Entry]:
    archive = ZipFile(path)  # stays open until its last image was read
    lock = Lock()
    for name, label in labels.items():
        yield Entry(name, f"{path}/{name}", partial(_open_zipped, archive, lock, name), label)


def _open_zipped(archive: ZipFile, lock: Lock, name: str) -> Image.Image:
    with lock:
        content = archive.read(name)
    return open_bytes(content)


def list_tar(path: Path) -> Listing:
    """The images in a tar archive, compressed or not.

    They are read in the order of the archive and then sorted by their paths.

    Raises:
        BadInput: if it cannot be read or holds no images.
    """
    files = tar_names(path)
    names = _sorted(filter(is_image, files), str(path))
    given = _labels_inside(_dataset_json(path) if DATASET_JSON in files else None, path)
    labels = dict(zip(names, labels_of(names, given), strict=True))
    return Listing(
        entries=partial(_tar_entries, path, labels),
        source=str(path),
        count=partial(len, names),
        identity=partial(stamps, [path]),
        by_name=True,
        notes=_notes(given, f"{path}/{DATASET_JSON}"),
    )


def _dataset_json(path: Path) -> bytes | None:
    return next((content for name, content in tar_files(path) if name == DATASET_JSON), None)


def _tar_entries(path: Path, labels: Mapping[str, Label]) -> Iterator[Entry]:
    for name, content in tar_files(path):
        if name in labels:
            yield Entry(name, f"{path}/{name}", partial(open_bytes, content), labels[name])


FOLDER = Source(
    read=lambda location, _: list_folder(location.paths[0]),
    accepts=lambda location: location.is_folder,
    options=frozenset({"labels"}),
)
ZIP = Source(
    read=lambda location, _: list_zip(location.paths[0]),
    suffixes=(".zip",),
    options=frozenset({"labels"}),
)
TAR = Source(
    read=lambda location, _: list_tar(location.paths[0]),
    suffixes=TAR_SUFFIXES,
    options=frozenset({"labels"}),
)
