"""One command of a kind at a time in a folder, or at a file.

The lock is the system's own and is released when its process ends, however it ends: a lock file
that a killed command left behind blocks nobody.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import filelock

from multistage_diffusion.cli.terminal import print_warning
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import holder_file, lock_file

__all__ = ["holding"]

MOST_SHOWN = 200  # characters of a note


@contextlib.contextmanager
def holding(path: Path, command: str, *, file: bool = False) -> Iterator[None]:
    """Locks a folder against the same command until the end of the block. Only rank 0 locks.

    Args:
        path: the folder where the command writes; made if it is not there.
        command: its name.
        file: whether the path is a file instead: other files of its folder stay free.

    Raises:
        BadInput: if the same command is at work there; says which process it is.
    """
    if not is_main_process():
        yield
        return
    folder = path.parent if file else path
    name = f"{command}.{path.name}" if file else command
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        in_use = f"{path} is in use by another multistage {command}"
        with _locked(lock_file(folder, name), holder_file(folder, name), in_use):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path, note: Path, in_use: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise BadInput(
            f"{in_use}, {_holder(note)}: wait until it has ended, or stop it."
        ) from error
    except NotImplementedError:
        print_warning(
            f"{path.parent} is on a file system without locks; run one command at a time."
        )
        yield
        return
    try:
        note.write_text(_about_this_process(), encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Windows keeps files that are open
            path.unlink()
        lock.release()


def _about_this_process() -> str:
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return f"process {os.getpid()} on {platform.node()} since {now}"


def _holder(note: Path) -> str:
    """Who holds a folder."""
    try:
        text = note.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return text[:MOST_SHOWN] or "which has just begun"
