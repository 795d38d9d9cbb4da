"""Writing files so that a crash, a full disk or a second command never loses an earlier version."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from multistage_diffusion.errors import BadInput

__all__ = [
    "cache_folder",
    "copy_atomically",
    "file_atomically",
    "fingerprint",
    "flush_folder",
    "folder_atomically",
    "json_fingerprint",
    "read_json",
    "read_object",
    "write_atomically",
    "write_json",
]


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Writes parts to a temporary name beside ``path``, flushes to disk, renames.

    Creates the folder if need be.
    """
    with file_atomically(path) as file:
        file.writelines(content)


def copy_atomically(source: Path, target: Path) -> None:
    """Copies a file, without holding its content in memory."""
    with source.open("rb") as content, file_atomically(target) as file:
        shutil.copyfileobj(content, file)


@contextmanager
def file_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file with a temporary name beside ``path`` that is renamed to it, unless an error occurs.

    Creates the folder if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:  # a full disk does not say which file it was
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Makes new names in a folder last through a loss of power, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that is renamed to it, unless an error occurs.

    ``path`` is free or an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Writes readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        BadInput: if the file cannot be read or is no JSON; names it.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    except RecursionError as error:
        raise BadInput(f"{path} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise BadInput(f"{path} is not valid JSON: {error}.") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        BadInput: if the file cannot be read or holds anything else; names it.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadInput(f"{path} is invalid: it must hold a JSON object.")
    return value


def fingerprint(path: Path) -> str:
    """A hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def json_fingerprint(value: object) -> str:
    """A hash of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """The folder of this program among the caches of the user."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "multistage-diffusion"
