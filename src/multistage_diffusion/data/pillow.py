"""Pillow's warnings and errors, caught for the image that they are about."""

import logging
import lzma
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zipfile import BadZipFile

from PIL import Image

__all__ = ["DAMAGE", "quiet"]

# What Pillow and the standard library raise for files that are damaged or no images at all
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    BadZipFile,
    Image.DecompressionBombError,
)
_messages = threading.local()
_lock = threading.Lock()


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Collects what Pillow warns of and logs in this thread, which then is not printed.

    The limit that Pillow has for the number of pixels is lifted meanwhile.

    Yields:
        The messages, added to as they come.
    """
    _State.enter()
    before = getattr(_messages, "collected", None)
    _messages.collected = collected = list[str]()
    try:
        yield collected
    finally:
        _messages.collected = before
        _State.leave()


class _Collector(logging.Handler):
    """Collects what is logged while an image is decoded."""

    def emit(self, record: logging.LogRecord) -> None:
        _collect(record.getMessage())


LOGGER = logging.getLogger("PIL")
HANDLER = _Collector(logging.WARNING)


def _collect(message: str) -> bool:
    """Keeps a message for the image that this thread decodes; False if it decodes none."""
    collected: list[str] | None = getattr(_messages, "collected", None)
    if collected is not None:
        collected.append(" ".join(message.split()).removesuffix("."))
    return collected is not None


class _State:
    """What is changed in Pillow and ``warnings`` as long as any thread decodes."""

    threads = 0
    caught: "warnings.catch_warnings[None]"
    limit: int | None
    propagated: bool

    @classmethod
    def enter(cls) -> None:
        with _lock:
            cls.threads += 1
            if cls.threads == 1:
                cls.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                cls.caught = warnings.catch_warnings()
                cls.caught.__enter__()
                warnings.filterwarnings("always", module=r"PIL\b")
                _collect_warnings()
                cls.propagated, LOGGER.propagate = LOGGER.propagate, False
                LOGGER.addHandler(HANDLER)

    @classmethod
    def leave(cls) -> None:
        with _lock:
            cls.threads -= 1
            if cls.threads == 0:
                LOGGER.removeHandler(HANDLER)
                LOGGER.propagate = cls.propagated
                cls.caught.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = cls.limit


def _collect_warnings() -> None:
    shown = warnings.showwarning

    def collect(message: Any, *where: Any, **more: Any) -> None:
        if not _collect(str(message)):
            shown(message, *where, **more)

    warnings.showwarning = collect
