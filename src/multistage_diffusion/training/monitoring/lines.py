"""Files of records, with a line of JSON for each."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from multistage_diffusion.config import from_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = ["append_line", "drop_lines_after", "read_lines"]


class Counted(Protocol):
    """A record that says how far a run had come."""

    @property
    def images(self) -> int:
        """Images seen."""
        ...


Line = TypeVar("Line", bound=Counted)


def append_line(path: Path, record: Any) -> None:
    """Adds a record, a dataclass, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
    except OSError as error:  # a full disk does not say which file it was
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_lines(kind: type[Line], path: Path) -> list[tuple[Line, bytes]]:
    """The records, oldest first, each with its line; a last line cut short is ignored.

    Args:
        kind: a dataclass of what is read of a record.
        path: the file; without it there are no records.

    Raises:
        BadInput: if a line is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    records = [_parsed(kind, line, f"{path}, line {k}") for k, line in enumerate(whole, 1)]
    return list(zip(records, whole, strict=True))


def _parsed(kind: type[Line], line: bytes, where: str) -> Line:
    try:
        return from_json(kind, json.loads(line), where)
    except RecursionError as error:
        raise BadInput(f"{where} is nested too deeply.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error


def drop_lines_after(kind: type[Line], path: Path, images: int) -> None:
    """Removes the records past a checkpoint: the run is about to write them again."""
    kept = [line for record, line in read_lines(kind, path) if record.images <= images]
    write_atomically(path, b"".join(kept))
