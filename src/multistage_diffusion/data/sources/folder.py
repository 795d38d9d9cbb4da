"""A folder of images. Linked folders are followed, but no image is read twice."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
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
        left_out=(*arranged.left_out, *walk.left_out()),
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
        """Links that lead to what was found already, or to nothing."""
        entries = (LeftOut(SEEN, tuple(self.seen)), LeftOut(DANGLING, tuple(self.dangling)))
        return tuple(entry for entry in entries if entry.names)

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
            self.folders.add(_identity(here))
            if not inner and not names and not is_foreign(self._name(here)):
                self.empty.append(self._name(here))
            links = sorted(name for name in inner if (here / name).is_symlink())
            self.linked += [here / name for name in links if not is_foreign(name)]
            yield from (here / name for name in sorted(names) if self._is_file(here / name))
            foreign = [name for name in inner if name in links and is_foreign(name)]
            yield from (here / name for name in foreign)
            inner[:] = sorted(name for name in inner if name not in links)

    def _is_file(self, path: Path) -> bool:
        if path.is_symlink() and not path.exists():
            self.dangling.append(self._name(path))
            return False
        return path.is_file()

    def _leads_back(self, link: Path) -> bool:
        """Whether a link leads to a folder that was read, or to one around itself."""
        target = link.resolve()
        return _identity(link) in self.folders or link.parent.resolve().is_relative_to(target)

    def _without_repeated(self, found: dict[str, Path]) -> dict[str, Path]:
        """Files without those that are links to others of them."""
        links = {name: path for name, path in found.items() if path.is_symlink()}
        if not links:
            return found
        real = {str(path.resolve()) for name, path in found.items() if name not in links}
        repeated = {name for name, path in links.items() if str(path.resolve()) in real}
        self.seen += sorted(repeated)
        return {name: path for name, path in found.items() if name not in repeated}


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


FOLDER = Source(
    read=lambda location, options: list_folder(location.paths[0], options),
    accepts=lambda location: location.is_folder,
    options=frozenset({"labels", "label_column", "split"}),
)
