"""Progress on the terminal: a bar with the time left, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from multistage_diffusion.distributed import is_main_process

__all__ = ["increments", "show_progress"]

Item = TypeVar("Item")
Advance = Callable[[int, str], None]
SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_UPDATES = 0.1


class Counted(Protocol):
    """A record that says how far a run has come."""

    @property
    def images(self) -> int:
        """Images seen so far."""
        ...


def show_progress(
    items: Iterable[Item],
    label: str,
    total: int,
    size: Callable[[Item], int],
    note: Callable[[Item], str] = lambda _: "",
    start: int = 0,
) -> Iterator[Item]:
    """Passes items through and shows progress on standard error of rank 0.

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
    count = _Count(label, start, total, start)
    with _bar(console, count) if console.is_terminal else _lines(count) as advance:
        for item in items:
            advance(size(item), note(item))
            yield item


def increments(before: int = 0) -> Callable[[Counted], int]:
    """A function from a record to the images since the one before."""
    last = before

    def images_since(record: Counted) -> int:
        nonlocal last
        step = record.images - last
        last = record.images
        return step

    return images_since


@dataclass
class _Count:
    """How far the work has come, and when that was last shown."""

    label: str
    start: int
    total: int
    done: int
    begun: float = field(default_factory=time.monotonic)
    shown: float = 0.0

    def add(self, amount: int, seconds: float) -> bool:
        """Counts work; returns whether to show it, at most once in ``seconds`` and at the end."""
        self.done += amount
        now = time.monotonic()
        if now - self.shown < seconds and self.done < self.total:
            return False
        self.shown = now
        return True

    @property
    def time_left(self) -> timedelta:
        """The time left at the mean speed so far."""
        passed = time.monotonic() - self.begun
        left = max(0, self.total - self.done)
        return timedelta(seconds=round(passed * left / max(1, self.done - self.start)))


@contextmanager
def _bar(console: Console, count: _Count) -> Iterator[Advance]:
    text = TextColumn("{task.description}")
    note_column = TextColumn("{task.fields[note]}")
    with Progress(text, BarColumn(), MofNCompleteColumn(), note_column, console=console) as bar:
        task = bar.add_task(count.label, total=count.total, completed=count.start, note="")

        def advance(amount: int, note: str) -> None:
            if count.add(amount, SECONDS_BETWEEN_UPDATES):
                bar.update(task, completed=count.done, note=f"{count.time_left} left  {note}")

        yield advance


@contextmanager
def _lines(count: _Count) -> Iterator[Advance]:
    def advance(amount: int, note: str) -> None:
        if count.add(amount, SECONDS_BETWEEN_LINES):
            share = f"{count.label} {count.done}/{count.total} ({count.done / count.total:.0%})"
            text = f"{share}, {count.time_left} left{'  ' + note if note else ''}"
            print(text, file=sys.stderr, flush=True)

    yield advance
