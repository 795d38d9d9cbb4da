"""Runs a command, and turns errors into exit codes.

Exit codes: 0 done; 2 an error the user can fix, in one line; 130 interrupted (training leaves a
checkpoint).
"""

import contextlib
import errno
import io
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import tyro

from multistage_diffusion.cli.discovery import command_names, command_type, overview
from multistage_diffusion.cli.launcher import check_launcher
from multistage_diffusion.cli.streams import prepare_streams, warn_on_standard_error
from multistage_diffusion.errors import BadInput, Diverged
from multistage_diffusion.text import one_line

__all__ = ["INTERRUPTED", "entry", "main", "parse"]

INTERRUPTED = 130
DEBUG = "--debug"
DISK_ERRORS = {
    errno.EACCES,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EINVAL,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EPERM,
    errno.EPIPE,
    errno.EROFS,
}
FAILED_ALLOCATION = (
    "allocate memory",
    "not enough memory",
    "out of memory",
    "buffer size",
    "Storage size calculation overflowed",
)
"""Parts of torch's messages about memory, which have no type of their own on every device."""
MAY_BE_EMPTY = ("--tag",)
ABOUT = "Diffusion models with one shared encoder and one decoder for each stage of noise."


class Command(Protocol):
    """A command with its settings, as it was typed."""

    def run(self) -> int | None:
        """Runs it and returns the exit code; None for 0."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    With ``--debug`` an error shows where it comes from before its line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warn_on_standard_error():
            check_launcher()
            return parse([word for word in words if word != DEBUG]).run() or 0
    except KeyboardInterrupt:
        print("multistage: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        problem = _problem(error)
        if problem is None:
            raise
        if DEBUG in words:
            traceback.print_exc()
    print(f"multistage: {one_line(problem)}", file=sys.stderr)
    return 2


def _problem(error: Exception) -> str | None:
    """What to tell the user about an error; None if it is not one that a user can fix."""
    if isinstance(error, BadInput | Diverged):
        return str(error)
    if isinstance(error, RecursionError):
        return f"A file or an option is nested too deeply to be read; {DEBUG} shows where."
    if _is_failed_allocation(error):
        return (
            f"There is not enough memory ({error}): use fewer or smaller images, a smaller "
            f"--batch-size or a smaller network; {DEBUG} shows where."
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = "standard output" if error.filename is None else error.filename
        return f"Cannot write or read {where}: {error.strerror}."
    return None


def _is_failed_allocation(error: Exception) -> bool:
    text = str(error)
    of_torch = isinstance(error, RuntimeError) and any(part in text for part in FAILED_ALLOCATION)
    return isinstance(error, MemoryError) or of_torch


def entry() -> None:
    """The console command."""
    prepare_streams()
    sys.exit(main())


def parse(arguments: Sequence[str] | None) -> Command:
    """A command with its settings.

    Only the module of the command that is named is imported, so that help appears at once.

    Raises:
        BadInput: if the arguments cannot be read or a setting is out of its bounds.
        SystemExit: with code 0 after ``--help``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _check_words(words)
    with _errors_in_one_line():
        if words and words[0] in command_names():
            name = words[0]
            return tyro.cli(command_type(name), prog=f"multistage {name}", args=words[1:])
        return tyro.cli(overview(), prog="multistage", description=ABOUT, args=words)


def _check_words(words: Sequence[str]) -> None:
    """Raises BadInput for words that are no value of any option."""
    for before, word in pairwise(["", *words]):
        if "\0" in word:
            raise BadInput(f"The argument {word!r} contains a zero byte.")
        if not word and before not in MAY_BE_EMPTY:
            raise BadInput(f"The argument after {before or 'multistage'} is empty.")


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Turns the parser's exit with an error into BadInput with its message."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            yield
    except SystemExit as error:
        if not error.code:
            raise
        raise BadInput(_one_line(message.getvalue())) from None


def _one_line(box: str) -> str:
    """The text of tyro's error box without its frame."""
    lines = [line.strip(" |│╭╮╰╯─-+") for line in box.splitlines()]
    text = " ".join(line for line in lines if line)
    return re.sub(r"(Value error )?Error parsing (?!-)\S+: ", "", text)
