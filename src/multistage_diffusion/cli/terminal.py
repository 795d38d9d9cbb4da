"""Progress on the terminal: a bar with the time left, or plain lines when the output is no terminal."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from multistage_diffusion.distributed import is_main_process

__all__ = ["say", "stop_on_signal", "track", "warn"]

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_UPDATES = 0.1


def say(text: str) -> None:
    """A line of result for a person, at once even into a pipe; from the first of several processes."""
    if is_main_process():
        print(text, flush=True)


def warn(text: str) -> None:
    """A line about something that is allowed but hardly meant, on standard error."""
    if is_main_process():
        print(f"multistage: warning: {text}", file=sys.stderr, flush=True)


def track(
    items: Iterable[Item],
    label: str,
    total: int,
    size: Callable[[Item], int],
    note: Callable[[Item], str] = lambda _: "",
    start: int = 0,
) -> Iterator[Item]:
    """Passes ``items`` through and shows how far they have come, on standard error.

    Args:
        items: the work.
        label: what is being done.
        total: size of the whole.
        size: how much an item adds.
        note: a few words about an item.
        start: how much was done before.
    """
    if not is_main_process():
        yield from items
        return
    console = Console(stderr=True)
    shown = (
        _bar(console, label, total, start) if console.is_terminal else _lines(label, total, start)
    )
    with shown as advance:
        for item in items:
            advance(size(item), note(item))
            yield item


@contextmanager
def _bar(
    console: Console, label: str, total: int, start: int
) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    begun, done, last = time.monotonic(), start, 0.0

    def advance(amount: int, note: str) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_UPDATES and done < total:
            return
        last = now
        progress.update(
            task, completed=done, note=f"{_left(begun, start, done, total)} left  {note}"
        )

    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, completed=start, note="")
        yield advance


@contextmanager
def _lines(label: str, total: int, start: int) -> Iterator[Callable[[int, str], None]]:
    begun, done, last = time.monotonic(), start, 0.0

    def advance(amount: int, note: str) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES and done < total:
            return
        last = now
        left = _left(begun, start, done, total)
        text = (
            f"{label} {done}/{total} ({done / total:.0%}), {left} left{'  ' + note if note else ''}"
        )
        print(text, file=sys.stderr, flush=True)

    yield advance


def _left(begun: float, start: int, done: int, total: int) -> timedelta:
    """The time left at the mean speed so far."""
    return timedelta(
        seconds=round((time.monotonic() - begun) * max(0, total - done) / max(1, done - start))
    )


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one acts as usual."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in signals:
        signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        restore()
