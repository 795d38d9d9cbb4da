"""A folder of images. Linked folders are followed, but no image is read twice."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import IO

from multistage_diffusion.data.formats import is_foreign, is_image_content
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.files import arrange
from multistage_diffusion.data.sources.left_out import LeftOut, about_empty
from multistage_diffusion.data.sources.listing import Entry, Listing, stamps
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.errors import BadInput

__all__ = ["FOLDER", "list_folder"]

SEEN = "links to what is read elsewhere in the data"
DANGLING = "links to nothing"
AS_TEXT = "links stored as text, which some programs make of them; make them links again"
MOST_BYTES = 1024  # of the text of a link


def list_folder(root: Path, options: ReadOptions) -> Listing:
    """The images in a folder and its subfolders, in the order of their paths.

    Raises:
        BadInput: if there are none, or a folder cannot be read.
    """
    walk = _Walk(root)
    files = walk.files()
    arranged = arrange(
        files,
        str(root),
        options,
        read=lambda name: files[name].read_bytes(),
        is_image=lambda name: _is_image(files[name]),
        before=walk.left_out(),
    )
    entries = [
        Entry(name, str(files[name]), partial(_opened, files[name]), label)
        for name, label in arranged.labels.items()
    ]
    stamped = [files[name] for name in (*arranged.labels, *arranged.label_files)]
    return Listing(
        entries=lambda: entries,
        source=str(root),
        count=partial(len, entries),
        identity=partial(stamps, stamped),
        notes=(*arranged.notes, *walk.notes()),
        left_out=arranged.left_out,
    )


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _is_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_image_content(file)
    except OSError:
        return False


class _Walk:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = set[tuple[int, int]]()
        self.linked = list[Path]()
        self.seen = list[str]()
        self.dangling = list[str]()
        self.texts = list[str]()
        self.empty = list[str]()

    def files(self) -> dict[str, Path]:
        """The files by their paths inside the folder. What is no link goes before links to it."""
        found = {self._name(path): path for path in self._below(self.root)}
        for link in self.linked:  # grows as links are found behind links
            if self._leads_back(link):
                self.seen.append(self._name(link))
            else:
                found |= {self._name(path): path for path in self._below(link)}
        return self._without_repeated(found)

    def left_out(self) -> tuple[LeftOut, ...]:
        """Links that lead to what was found already, or to nothing, or are text."""
        links = {SEEN: self.seen, DANGLING: self.dangling, AS_TEXT: self.texts}
        return tuple(LeftOut(reason, tuple(names)) for reason, names in links.items() if names)

    def notes(self) -> tuple[str, ...]:
        """What else there is to know."""
        return about_empty(self.empty)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _below(self, folder: Path) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            raise BadInput(f"Cannot read the folder {error.filename}: {error.strerror}.")

        for name, inner, names in os.walk(folder, onerror=refuse):
            here = Path(name)
            if not self._enter(here):
                self.seen.append(self._name(here))
                inner.clear()
                continue
            if not is_foreign(self._name(here)) and all(map(is_foreign, (*inner, *names))):
                self.empty.append(self._name(here))
            links = sorted(name for name in inner if (here / name).is_symlink())
            foreign = [name for name in links if is_foreign(self._name(here / name))]
            self.linked += [here / name for name in links if name not in foreign]
            yield from (here / name for name in sorted(names) if self._is_file(here / name))
            yield from (here / name for name in foreign)
            inner[:] = sorted(name for name in inner if name not in links)

    def _enter(self, folder: Path) -> bool:
        """Notes that a folder is read, unless it is hidden; False if it was read before."""
        identity = _identity(folder)
        if identity in self.folders:
            return False
        if not is_foreign(self._name(folder)):
            self.folders.add(identity)
        return True

    def _is_file(self, path: Path) -> bool:
        if path.is_symlink() and not path.exists():
            self.dangling.append(self._name(path))
            return False
        if _is_text_of_link(path):
            self.texts.append(self._name(path))
            return False
        return path.is_file()

    def _leads_back(self, link: Path) -> bool:
        """Whether a link leads to a folder that was read, or to one around itself."""
        target = link.resolve()
        return _identity(link) in self.folders or link.parent.resolve().is_relative_to(target)

    def _without_repeated(self, found: dict[str, Path]) -> dict[str, Path]:
        """Files without links to others of them, or to what an earlier link leads to."""
        links = {name: path for name, path in found.items() if path.is_symlink()}
        if not links:
            return found
        ours = (path for name, path in found.items() if not is_foreign(name))
        real = {str(path.resolve()) for path in ours if not path.is_symlink()}
        repeated = set[str]()
        for name, path in sorted(links.items()):
            target = str(path.resolve())
            if target in real:
                repeated.add(name)
            real.add(target)
        self.seen += sorted(repeated)
        return {name: path for name, path in found.items() if name not in repeated}


def _is_text_of_link(path: Path) -> bool:
    """Whether a file without a suffix holds the path of a folder or file, as git stores a link."""
    if path.suffix or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return False
    try:
        text = path.read_bytes().decode()
        return bool(PurePath(text).parts) and (path.parent / text).exists()
    except (OSError, ValueError):
        return False


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


FOLDER = Source(
    read=lambda location, options: list_folder(location.paths[0], options),
    accepts=lambda location: location.is_folder,
    options=frozenset({"labels", "label_column", "split"}),
)
