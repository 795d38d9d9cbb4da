"""The promise of the command line, and how a command is held to it."""

import contextlib
import io
import json
import math
import re
import resource
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import psutil

from multistage_diffusion.cli import main

__all__ = ["check_promise"]

SECONDS = 100
HEADROOM = 6 << 30  # bytes that a command may allocate
PROGRESS = re.compile(r"\S.* \d+/\d+ \(\d+%\), .* left.*")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def check_promise(arguments: Sequence[object], folder: Path) -> int:
    """Runs a command in this process and checks how it ends.

    That is: soon, with exit code 0, or with 2 and one line, and then no file in the folder that
    was there before is lost or changed.

    Returns:
        The exit code.
    """
    words = [str(argument) for argument in arguments]
    before = _contents(folder)
    output, errors = io.StringIO(), io.StringIO()
    with _limits(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(words)
    about = f"{words}: {errors.getvalue()}"
    assert code in (0, 2), about
    assert not CONTROL.search(output.getvalue() + errors.getvalue()), about
    if code == 2:
        lines = [line for line in errors.getvalue().splitlines() if not PROGRESS.fullmatch(line)]
        problems = [line for line in lines if not line.startswith("multistage: warning: ")]
        assert len(problems) == 1, about
        assert problems[0].startswith("multistage: "), about
        assert not _lost(before, _contents(folder)), about
    return code


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _lost(before: dict[Path, bytes], after: dict[Path, bytes]) -> list[Path]:
    """The files that are not as before; one that is damaged may have been renamed."""
    kept = set(after.values())
    changed = [path for path, content in before.items() if content not in kept]
    return [path for path in changed if not _has_grown(before[path], after.get(path, b""))]


def _has_grown(before: bytes, after: bytes) -> bool:
    """Whether results were added to a list, as of the checkpoints before a damaged one."""
    try:
        old, new = json.loads(before), json.loads(after)
    except ValueError:
        return False
    return isinstance(old, list) and isinstance(new, list) and new[: len(old)] == old


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Ends what takes too long or too much memory with an error."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not finished in {SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, too_long)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = psutil.Process().memory_info().vms + HEADROOM
    limit = allowed if hard == resource.RLIM_INFINITY else min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    signal.alarm(math.ceil(SECONDS))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, previous)
