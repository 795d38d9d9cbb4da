"""Labels as numbers: which classes there are, and which number each has in a network.

Only classes that occur get one: a network has an input for each. They are numbered in the order of
the numbers they have in the data, or of their names, in which digits count as numbers.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.data.sources.listing import Label
from multistage_diffusion.errors import BadInput

__all__ = [
    "LARGEST_LABEL",
    "NumberedLabels",
    "as_whole",
    "in_order_of_names",
    "normalised",
    "number_of",
    "numbered",
]

LARGEST_LABEL = 2**63 - 1
MOST_DIGITS = 100  # of a text that is read as a number


@dataclass(frozen=True)
class NumberedLabels:
    """The classes of images."""

    labels: Tensor | None = None
    """Class of each image, int64 ``[N]``; None if no image has one."""
    classes: tuple[str, ...] = ()
    """Names of the classes that occur."""
    numbers: tuple[int, ...] = ()
    """The number that each of them has in the data."""
    notes: tuple[str, ...] = ()
    """What the user should know about them."""


def number_of(text: str) -> int | None:
    """The whole number in a text, such as 3, or 3.0 as tables write it; else None."""
    whole, _, zeros = text.partition(".")
    is_whole = whole.removeprefix("-").isdecimal() and not zeros.strip("0")
    return int(whole) if is_whole and len(text) <= MOST_DIGITS else None


def as_whole(value: Any) -> Any:
    """A number such as 3.0 as a whole one: tables with gaps store them so. Others as they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def normalised(name: str) -> str:
    """A name as it is compared: Unicode composed or decomposed is the same."""
    return unicodedata.normalize("NFC", name)


def numbered(
    labels: Sequence[Label], names: Sequence[str], classes: tuple[str, ...] = ()
) -> NumberedLabels:
    """Labels as numbers.

    Args:
        labels: the label of each image.
        names: the name of each image in messages.
        classes: names of the classes that numbers stand for, if known.

    Raises:
        BadInput: if only some images have a label, or labels are neither numbers from 0 nor names.
    """
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if len(missing) == len(labels):
        return NumberedLabels()
    if missing:
        raise BadInput(
            f"{missing[0]} has no label, nor have {len(missing) - 1} others of {len(labels)}; "
            "give all images one, or leave these out with --skip-unlabelled."
        )
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        return _of_numbers(numbers, names, classes)
    return _of_texts([normalised(str(label)) for label in labels])


def _of_numbers(
    labels: list[int], names: Sequence[str], classes: tuple[str, ...]
) -> NumberedLabels:
    limit = len(classes) - 1 if classes else LARGEST_LABEL
    for name, label in zip(names, labels, strict=True):
        if not 0 <= label <= limit:
            raise BadInput(f"{name} has the label {label}; labels count from 0 to {limit}.")
    found, indices = torch.tensor(labels).unique(return_inverse=True)
    numbers = tuple(map(int, found.tolist()))  # of True and False too
    present = tuple(classes[number] if classes else str(number) for number in numbers)
    return NumberedLabels(indices, present, numbers, _about_empty(classes, present))


def _about_empty(classes: tuple[str, ...], present: tuple[str, ...]) -> tuple[str, ...]:
    """A note about classes without images, if there are any."""
    kept = set(present)
    empty = [name for name in classes if name not in kept]
    if not empty:
        return ()
    return (
        f"{len(empty)} of {len(classes)} classes have no images and are left out: {named(empty)}",
    )


def _of_texts(labels: list[str]) -> NumberedLabels:
    classes = tuple(in_order_of_names(set(labels)))
    number = {name: index for index, name in enumerate(classes)}
    indices = torch.tensor([number[label] for label in labels])
    are_numbers = all(name.isdecimal() and len(name) < 19 for name in classes)
    numbers = tuple(map(int, classes)) if are_numbers else ()
    if len(set(numbers)) < len(classes):  # such as 1 and 01
        numbers = tuple(range(len(classes)))
    return NumberedLabels(indices, tuple(map(_printable, classes)), numbers, _about_alike(classes))


def _about_alike(classes: Sequence[str]) -> tuple[str, ...]:
    """A note about names that differ in capitals, spaces or the way a number is written."""
    groups: dict[object, list[str]] = {}
    for name in classes:
        groups.setdefault(_rough(name), []).append(name)
    alike = [" and ".join(map(repr, names)) for names in groups.values() if len(names) > 1]
    return (f"classes of nearly the same name: {named(alike)}",) if alike else ()


def _rough(name: str) -> object:
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < 2**53 else text


def _printable(name: str) -> str:
    """A name that was not UTF-8 on disk, with the bytes in question as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def in_order_of_names(names: set[str]) -> list[str]:
    """Names in order: those of digits as numbers and first, the others by their letters."""
    return sorted(names, key=_place)


def _place(name: str) -> tuple[bool, int, str]:
    of_digits = name.isdecimal() and len(name) <= MOST_DIGITS
    return not of_digits, int(name) if of_digits else 0, name
