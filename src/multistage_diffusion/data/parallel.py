"""Work on many items at once, in threads.

What decodes, resamples or draws does not hold Python's lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["cores", "in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")
TOGETHER = 8  # handed to a thread at once, since handing over takes time too


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """The result of ``work`` for each item, in order; only a few items are taken ahead.

    Args:
        work: called in threads.
        items: gone through in the caller's thread.
        threads: how many; as many as there are cores if not given.
    """
    threads, source, pending = threads or cores(), iter(items), deque[Future[list[Result]]]()
    pool = ThreadPoolExecutor(threads)
    try:
        while some := list(islice(source, TOGETHER)):
            pending.append(pool.submit(_each, work, some))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _each(work: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [work(item) for item in items]
