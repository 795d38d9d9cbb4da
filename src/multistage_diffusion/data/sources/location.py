"""What a user names as a data set, and the files or the folder that the name stands for."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from multistage_diffusion.data.formats import is_foreign
from multistage_diffusion.errors import BadInput

__all__ = ["Location", "expand_braces", "locate"]

MOST_TEXTS = 100_000
"""That a pattern may stand for."""


@dataclass(frozen=True)
class Location:
    """A name and what it stands for."""

    given: str
    """The name as the user gave it."""
    paths: tuple[Path, ...] = ()
    """The file or folder of that name, or the files that a pattern stands for; empty for none."""
    is_pattern: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.given if self.is_pattern or not self.paths else str(self.paths[0])

    @property
    def is_folder(self) -> bool:
        """Whether it is one folder."""
        return len(self.paths) == 1 and self.paths[0].is_dir()

    def are_files(self, suffixes: tuple[str, ...]) -> bool:
        """Whether it is a file, or several, whose names all end with one of ``suffixes``."""
        if not self.paths or self.is_folder:
            return False
        return all(path.name.lower().endswith(suffixes) for path in self.paths)


def locate(source: Path | str) -> Location:
    """The files that a name stands for, if it is a path or a pattern.

    Args:
        source: a path; a pattern with ``*``, ``?``, ``[]`` or ``{}``; or any other name.

    Raises:
        BadInput: if the name is empty, or a file that a pattern stands for is missing.
    """
    given = str(source)
    if not given.strip():
        raise BadInput("The name of the data set is empty: give a folder, a file or a pattern.")
    path = Path(source)
    if os.path.exists(path):  # noqa: PTH110  (false for names that no file can have)
        return Location(given, (path,))
    if os.path.islink(path):  # noqa: PTH114
        raise BadInput(f"{given} is a link to nothing: {path.readlink()} does not exist.")
    if re.search(r"[*?\[{]", given):
        return Location(given, _files_of(given), is_pattern=True)
    return Location(given)


def _files_of(pattern: str) -> tuple[Path, ...]:
    paths = [path for part in expand_braces(pattern) for path in _matches(Path(part))]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise BadInput(f"There is no file {missing[0]}, of {len(paths)} that {pattern} stands for.")
    return tuple(paths)


def _matches(pattern: Path) -> Sequence[Path]:
    """The paths that ``*``, ``?`` and ``[]`` stand for, in order; the pattern itself if none.

    They stand for no hidden files and none of other programs, as in a shell.

    Raises:
        BadInput: if it is no pattern.
    """
    root = Path(pattern.anchor)
    try:
        found = sorted(root.glob(str(pattern.relative_to(root))))
        return [path for path in found if not _is_hidden(path, pattern)] or [pattern]
    except (ValueError, IndexError) as error:
        raise BadInput(f"{str(pattern)!r} is not a pattern of file names: {error}.") from error


def _is_hidden(path: Path, pattern: Path) -> bool:
    """Whether a path is hidden or foreign where its pattern does not say so."""
    said = pattern.name.startswith(".")
    return not said and any(is_foreign(part) for part in set(path.parts) - set(pattern.parts))


def expand_braces(pattern: str) -> list[str]:
    """The texts that braces stand for: ``{000..004}`` for numbers, ``{a,b}`` for alternatives.

    Raises:
        BadInput: if they are more than a data set has files, or braces are empty.
    """
    texts = list(islice(_expanded(pattern), MOST_TEXTS + 1))
    if len(texts) > MOST_TEXTS:
        raise BadInput(f"The pattern {pattern} stands for more than {MOST_TEXTS:,} files.")
    return texts


def _expanded(pattern: str) -> Iterator[str]:
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        yield pattern
        return
    before = pattern[: braces.start()]
    after = pattern[braces.end() :]
    if not braces[1]:
        raise BadInput(f"{pattern!r} is not a pattern of file names: its braces are empty.")
    for text in _alternatives(braces[1]):
        yield from _expanded(before + text + after)


def _alternatives(inside: str) -> Iterator[str]:
    """What the text between two braces stands for; numbers are as wide as the first one.

    They count down where the second one is the smaller.
    """
    numbers = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
    if not numbers:
        return iter(inside.split(","))
    first, last = (int(text) for text in numbers.groups())
    step = 1 if first <= last else -1
    return (str(number).zfill(len(numbers[1])) for number in range(first, last + step, step))
