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
    "LABELS_INSIDE",
    "labels_for",
    "numbered",
    "of_subfolders",
    "read_labels",
    "read_labels_inside",
]

LABELS_INSIDE = "dataset.json"  # where EDM's and StyleGAN's tools put the labels
Labels = dict[str, int | str]


def numbered(
    labels: Sequence[Label], names: Sequence[str], classes: tuple[str, ...]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as int64 ``[N]`` and the names of their classes; nothing if no image has a label.

    Args:
        labels: the label of each image. Names are numbered in alphabetical order, numbers stay.
        names: what messages call each image.
        classes: names of the classes that numbers mean, if known.

    Raises:
        BadInput: if some images have a label and others none, or labels are neither numbers from 0 nor names.
    """
    missing = [name for name, label in zip(names, labels, strict=True) if label is None]
    if len(missing) == len(labels):
        return None, ()
    if missing:
        raise BadInput(
            f"{missing[0]} has no label, nor have {len(missing) - 1} others of {len(labels)}; "
            "give all images one."
        )
    if all(isinstance(label, int) for label in labels):
        return _of_numbers([int(label) for label in labels if label is not None], names, classes)
    texts = [str(label) for label in labels]
    found = sorted(set(texts))
    number = {text: index for index, text in enumerate(found)}
    return torch.tensor([number[text] for text in texts]), tuple(found)


def _of_numbers(
    labels: list[int], names: Sequence[str], classes: tuple[str, ...]
) -> tuple[Tensor, tuple[str, ...]]:
    for name, label in zip(names, labels, strict=True):
        if label < 0 or (classes and label >= len(classes)):
            raise BadInput(
                f"{name} has the label {label}; labels count from "
                f"0{f' to {len(classes) - 1}' if classes else ''}."
            )
    return torch.tensor(labels), classes or tuple(str(k) for k in range(max(labels) + 1))


def of_subfolders(names: Sequence[str]) -> list[Label]:
    """For each image the folder it lies in, at the first level where there are several; None for all if there is none such."""
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
    found = _of_csv(text, str(path)) if path.suffix.lower() == ".csv" else _of_json(text, str(path))
    if not found:
        raise BadInput(f"{path} holds no labels.")
    return found


def read_labels_inside(content: bytes, where: str) -> Labels:
    """The labels in the ``dataset.json`` of a data set; none if it says that there are none.

    Raises:
        BadInput: if it holds something else.
    """
    return _of_json(content.decode("utf-8", "replace"), where)


def _of_csv(text: str, where: str) -> Labels:
    reader = csv.DictReader(io.StringIO(text))
    if not {"file", "label"} <= set(reader.fieldnames or ()):
        raise BadInput(
            f"{where} needs the header file,label in its first line, not "
            f"{','.join(reader.fieldnames or ())!r}."
        )
    rows = [(row["file"], row["label"]) for row in reader]
    if all(label is not None and label.isdecimal() for _, label in rows):
        return _checked([(name, int(label)) for name, label in rows], where)
    return _checked(rows, where)


def _of_json(text: str, where: str) -> Labels:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error
    if (
        isinstance(content, dict)
        and isinstance(content.get("labels"), list | None)
        and "labels" in content
    ):
        pairs = content["labels"] or []
    else:
        pairs = list(content.items()) if isinstance(content, dict) else None
    if pairs is None or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise BadInput(
            f'{where} needs labels as {{"file": label}} or {{"labels": [["file", 3], ...]}}.'
        )
    return _checked(pairs, where)


def _checked(pairs: Sequence[tuple[Any, Any]], where: str) -> Labels:
    for name, label in pairs:
        if not isinstance(label, int | str) or isinstance(label, bool) or label == "":
            raise BadInput(
                f"{where} has the label {label!r} for {name}; labels are whole numbers from 0 or "
                "names."
            )
    return {PurePosixPath(str(name).replace("\\", "/")).as_posix(): label for name, label in pairs}


def labels_for(names: Sequence[str], inside: Mapping[str, int | str] | None) -> list[Label]:
    """The label of each image of a folder or an archive: from its own file of labels if it has one, else from its subfolders."""
    return of_subfolders(names) if inside is None else [inside.get(name) for name in names]
