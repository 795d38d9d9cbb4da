"""Signals as requests to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_on_signal"]

NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if name in signal.Signals.__members__)
"""SIGBREAK is what Windows sends to a process in a group of its own."""


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns the first of these signals into a request to stop; a second one acts as usual.

    Yields:
        A function that says whether to stop.
    """
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        restore()
