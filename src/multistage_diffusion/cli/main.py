"""Runs a command, and turns errors into exit codes.

Exit codes: 0 done; 2 an error the user can fix, in one line; 130 interrupted (training leaves a
checkpoint).
"""

import contextlib
import errno
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

import tyro

from multistage_diffusion.cli.discovery import command_names, command_type, overview
from multistage_diffusion.errors import BadInput, Diverged

__all__ = ["INTERRUPTED", "entry", "main", "parse"]

INTERRUPTED = 130
DISK_ERRORS = {
    errno.EACCES,
    errno.ENOENT,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}
ABOUT = "Diffusion models with one shared encoder and one decoder for each stage of noise."


class Command(Protocol):
    """A command with its settings, as it was typed."""

    def run(self) -> int | None:
        """Runs it and returns the exit code; None for 0."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        return parse(arguments).run() or 0
    except KeyboardInterrupt:
        print("multistage: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BadInput, Diverged) as error:
        problem = str(error)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        problem = f"Cannot write or read {error.filename}: {error.strerror}."
    print(f"multistage: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def entry() -> None:
    """The console command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know all characters
            stream.reconfigure(errors="replace")
    sys.exit(main())


def parse(arguments: Sequence[str] | None) -> Command:
    """A command with its settings.

    Only the module of the command that is named is imported, so that help appears at once.

    Raises:
        BadInput: if the arguments cannot be read or a setting is out of its bounds.
        SystemExit: with code 0 after ``--help``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _errors_in_one_line():
        if words and words[0] in command_names():
            name = words[0]
            return tyro.cli(command_type(name), prog=f"multistage {name}", args=words[1:])
        return tyro.cli(overview(), prog="multistage", description=ABOUT, args=words)


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
    return re.sub(r"(Value error )?Error parsing \S*__\S*: ", "", text)
