"""Pillow's warnings and errors, caught for the image that they are about."""

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
    """Collects the warnings of Pillow in this thread, which then are not printed.

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


class _State:
    """What is changed in Pillow and ``warnings`` as long as any thread decodes."""

    threads = 0
    caught: "warnings.catch_warnings[None]"
    limit: int | None

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

    @classmethod
    def leave(cls) -> None:
        with _lock:
            cls.threads -= 1
            if cls.threads == 0:
                cls.caught.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS = cls.limit


def _collect_warnings() -> None:
    shown = warnings.showwarning

    def collect(message: Any, *where: Any, **more: Any) -> None:
        collected = getattr(_messages, "collected", None)
        if collected is None:
            shown(message, *where, **more)
        else:
            collected.append(" ".join(str(message).split()).removesuffix("."))

    warnings.showwarning = collect
