import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multistage_diffusion.data import load
from multistage_diffusion.data.parallel import in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.001 * (number * 7 % 5))
        return number**2

    assert list(in_order(work, range(100), threads)) == [number**2 for number in range(100)]


def test_only_a_few_items_are_taken_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield number

    results = in_order(str, items(), 2)
    assert next(results) == "0"
    assert taken <= 8 * 6
    before = threading.active_count()
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before


def test_an_error_is_raised_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // (20 - number), range(40), 3))
    with pytest.raises(RuntimeError, match="of the source"):
        list(in_order(str, failing(), 3))


def failing() -> Iterator[int]:
    yield 1
    raise RuntimeError("of the source")


def test_threads_do_not_change_a_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = load(folder)
    monkeypatch.setattr("multistage_diffusion.data.parallel.cores", lambda: 1)
    one = load(folder)
    assert one.fingerprint == many.fingerprint
    assert one.notes == many.notes
