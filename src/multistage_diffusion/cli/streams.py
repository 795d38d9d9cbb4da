"""Standard output and standard error: their encoding, and warnings that are logged."""

import codecs
import contextlib
import io
import logging
import sys
from collections.abc import Iterator

from multistage_diffusion.text import one_line

__all__ = ["prepare_streams", "warn_on_standard_error"]

PLAIN = {"\u2588": "#", "\u00b1": "+/-", "\u2026": "...", "\u2013": "-"}
"""What stands for characters in output whose encoding does not have them."""
FALLBACK = "multistage-plain"


def prepare_streams() -> None:
    """Lets both streams write any text: characters that their encoding lacks become plain ones."""
    codecs.register_error(FALLBACK, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=FALLBACK)


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in characters), error.end


class _OneLine(logging.Handler):
    """Writes each warning as a line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"multistage: warning: {one_line(record.getMessage())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def warn_on_standard_error() -> Iterator[None]:
    """Shows the warnings that the library logs while a command runs."""
    logger = logging.getLogger("multistage_diffusion")
    handler = _OneLine(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
