"""Which classes a call of the pipeline asks for."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["class_indices", "requested_labels"]


def requested_labels(
    asked: Any, count: int, repeats: int, classes: int, names: Sequence[str]
) -> Tensor | None:
    """The class of each image of a call, int64 ``[count * repeats]``; None without classes.

    Args:
        asked: classes by number or name, or None: then the classes take turns.
        count: how many are asked for.
        repeats: images for each of them.
        classes: of the model.
        names: of its classes, or none.

    Raises:
        ValueError: if the model has no such class.
    """
    if asked is not None:
        indices = class_indices(asked, classes, names)
        return torch.tensor(indices).repeat_interleave(repeats)
    return torch.arange(count * repeats) % classes if classes else None


def class_indices(asked: Any, classes: int, names: Sequence[str]) -> list[int]:
    """Classes by number or name as numbers. Nested lists are flattened."""
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
