"""Labels: from subfolders, from a file, and as numbers."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.data.sources.listing import Label
from multistage_diffusion.errors import BadInput

__all__ = [
    "DATASET_JSON",
    "is_number",
    "labels_of",
    "numbered",
    "of_subfolders",
    "parse_labels",
    "read_labels",
]

DATASET_JSON = "dataset.json"  # where the tools of EDM and StyleGAN put the labels
Labels = dict[str, int | str]
LARGEST_LABEL = 2**63 - 1
MOST_DIGITS = 100  # of a text that is read as a number
MOST_SHOWN = 80  # characters of a label in a message


def numbered(
    labels: Sequence[Label], names: Sequence[str], classes: tuple[str, ...]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as numbers, and the names of their classes.

    Args:
        labels: the label of each image. Names are numbered in alphabetical order, numbers stay.
        names: the name of each image in messages.
        classes: names of the classes that numbers stand for, if known.

    Returns:
        int64 ``[N]`` and the names of the classes; None and nothing if no image has a label.

    Raises:
        BadInput: if only some images have a label, or labels are neither numbers from 0 nor names.
    """
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if len(missing) == len(labels):
        return None, ()
    if missing:
        raise BadInput(
            f"{missing[0]} has no label, nor have {len(missing) - 1} others of {len(labels)}; "
            "give all images one."
        )
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        return _of_numbers(numbers, names, classes)
    return _of_texts([str(label) for label in labels])


def _of_numbers(
    labels: list[int], names: Sequence[str], classes: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    limit = f" to {len(classes) - 1}" if classes else ""
    for name, label in zip(names, labels, strict=True):
        if label < 0 or (classes and label >= len(classes)):
            raise BadInput(f"{name} has the label {label}; labels count from 0{limit}.")
    return torch.tensor(labels), classes or tuple(str(k) for k in range(max(labels) + 1))


def _of_texts(labels: list[str]) -> tuple[Tensor, tuple[str, ...]]:
    classes = tuple(sorted(set(labels)))
    number = {name: index for index, name in enumerate(classes)}
    return torch.tensor([number[label] for label in labels]), classes


def labels_of(names: Sequence[str], given: Mapping[str, int | str] | None) -> list[Label]:
    """The label of each image of a folder or an archive.

    Args:
        names: the paths of the images inside it.
        given: the labels of its ``dataset.json``, which replace those of subfolders; None if it
            has no such file.
    """
    return of_subfolders(names) if given is None else [given.get(name) for name in names]


def of_subfolders(names: Sequence[str]) -> list[Label]:
    """The subfolder of each image, at the first level where there are several; else None for all.

    Args:
        names: the paths of the images inside the data set.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(min(map(len, folders), default=0)):
        if len({parts[level] for parts in folders}) > 1:
            return [parts[level] for parts in folders]
    return [None] * len(names)


def read_labels(path: Path) -> Labels:
    """The labels of a CSV or JSON file, by the names of the images.

    Raises:
        BadInput: if it cannot be read or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"Cannot read the labels in {path}: {error}.") from error
    parse = _of_csv if path.suffix.lower() == ".csv" else _of_json
    labels = parse(text, str(path))
    if not labels:
        raise BadInput(f"{path} holds no labels.")
    return labels


def parse_labels(content: bytes, where: str) -> Labels:
    """The labels in a ``dataset.json``; none if it says that there are none.

    Args:
        content: the content of the file.
        where: its name in messages.

    Raises:
        BadInput: if it holds something else.
    """
    return _of_json(content.decode("utf-8", "replace"), where)


def _of_csv(text: str, where: str) -> Labels:
    reader = csv.DictReader(io.StringIO(text))
    header = reader.fieldnames or ()
    if not {"file", "label"} <= set(header):
        raise BadInput(
            f"{where} needs the header file,label in its first line, not {','.join(header)!r}."
        )
    try:
        rows = [(row["file"], row["label"]) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{where} is not a table of labels: {error}.") from error
    if all(label is not None and is_number(label) for _, label in rows):
        return _checked([(name, int(label)) for name, label in rows], where)
    return _checked(rows, where)


def _of_json(text: str, where: str) -> Labels:
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise BadInput(f"{where} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error
    pairs = _pairs(content)
    if pairs is None or not all(_is_pair(pair) for pair in pairs):
        raise BadInput(
            f'{where} needs labels as {{"file": label}} or {{"labels": [["file", 3], ...]}}.'
        )
    return _checked(pairs, where)


def is_number(text: str) -> bool:
    """Whether a text is a whole number, of as many digits as a label may have."""
    return text.removeprefix("-").isdecimal() and len(text) <= MOST_DIGITS


def _pairs(content: Any) -> list[Any] | None:
    """Names and labels in the content of a JSON file, in either form; None for any other."""
    if not isinstance(content, dict):
        return None
    inside = content.get("labels", "")
    if inside is None or isinstance(inside, list):
        return inside or []
    return list(content.items())


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _checked(pairs: Sequence[tuple[Any, Any]], where: str) -> Labels:
    for name, label in pairs:
        known = isinstance(label, int | str) and not isinstance(label, bool) and label != ""
        if not known or (isinstance(label, int) and abs(label) > LARGEST_LABEL):
            raise BadInput(
                f"{where} has the label {str(label)[:MOST_SHOWN]} for {name}; "
                "labels are whole numbers from 0 to 2^63 - 1 or names."
            )
    return {_posix(name): label for name, label in pairs}


def _posix(name: object) -> str:
    return PurePosixPath(str(name).replace("\\", "/")).as_posix()
