"""Which classes a call of the pipeline asks for."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

__all__ = ["class_indices"]


def class_indices(asked: Any, classes: int, names: Sequence[str]) -> list[int]:
    """Classes by number or name as numbers. Nested lists are flattened.

    Args:
        asked: one or several.
        classes: how many the model has.
        names: of its classes, or none.

    Raises:
        ValueError: if the model has no such class.
    """
    return [_index(entry, classes, names) for entry in _flat(asked)]


def _flat(asked: Any) -> Iterator[int | str]:
    if isinstance(asked, Tensor):
        asked = asked.tolist()
    if isinstance(asked, list | tuple):
        for entry in asked:
            yield from _flat(entry)
    else:
        yield asked


def _index(asked: int | str, classes: int, names: Sequence[str]) -> int:
    if asked in names:
        return list(names).index(str(asked))
    if isinstance(asked, int) and 0 <= asked < classes:
        return asked
    known = ", ".join(names) or f"0 to {classes - 1}"
    has = f"has the classes {known}" if classes else "is unconditional"
    raise ValueError(f"There is no class {asked!r}: the model {has}.")
