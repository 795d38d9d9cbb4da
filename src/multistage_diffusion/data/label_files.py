"""Files of labels: CSV, JSON, a JSON object in each line, and EDM's ``dataset.json``.

Images are named by their paths inside the data, parts separated by ``/``. Names are compared in
Unicode's composed form. The ``metadata.csv``, ``.jsonl`` and ``.parquet`` of Hugging Face's
image folders are such files too, with further columns.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from multistage_diffusion.data.labels import LARGEST_LABEL, as_whole, normalised, number_of
from multistage_diffusion.errors import BadInput
from multistage_diffusion.text import one_line

__all__ = [
    "DATASET_JSON",
    "Labels",
    "Rows",
    "file_column",
    "labels_of_rows",
    "parse_json",
    "parse_rows",
    "read_labels",
]

DATASET_JSON = "dataset.json"  # where the tools of EDM and StyleGAN put the labels
FILE_COLUMNS = ("file", "file_name", "filename")
LABEL_COLUMN = "label"
DELIMITERS = ",;\t"
MOST_SHOWN = 80  # characters of a label in a message
Labels = dict[str, int | str]
Rows = list[dict[str, Any]]


def read_labels(path: Path, column: str | None = None) -> Labels:
    """The labels of a file, by the names of the images.

    Args:
        path: the file, CSV or JSON.
        column: which column holds the label, if another one than ``label``.

    Raises:
        BadInput: if it cannot be read or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"Cannot read the labels in {path}: {error}.") from error
    labels = parse_labels(content, path.suffix.lower(), str(path), column)
    if not labels:
        raise BadInput(f"{path} holds no labels.")
    return labels


def parse_labels(content: bytes, suffix: str, where: str, column: str | None = None) -> Labels:
    """The labels in the content of a file.

    Args:
        content: the content.
        suffix: of the file, which gives its format.
        where: its name in messages.
        column: which column holds the label, if another one than ``label``.

    Raises:
        BadInput: if it holds something else.
    """
    if suffix in (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet"):
        return _of_rows(parse_rows(content, suffix, where), where, column)
    return parse_json(content, where)


def parse_rows(content: bytes, suffix: str, where: str) -> Rows:
    """The rows of a table of images, by the names of its columns.

    Args:
        content: the content of a CSV or parquet file, or of one with a JSON object in each line.
        suffix: of the file, which gives its format.
        where: its name in messages.

    Raises:
        BadInput: if it holds something else.
    """
    if suffix == ".parquet":
        return _of_parquet(content, where)
    text = _text(content, where)
    return _of_lines(text, where) if suffix in (".jsonl", ".ndjson") else _of_csv(text, where)


def _text(content: bytes, where: str) -> str:
    """The text of a file in UTF-8, or UTF-16 if it begins like that."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"Cannot read the labels in {where}: {error}.") from error


def _of_csv(text: str, where: str) -> Rows:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        lines: list[list[Any]] = [[cell.strip() for cell in line] for line in reader]
    except csv.Error as error:
        raise BadInput(f"{where} is not valid CSV: line {reader.line_num}: {error}.") from error
    names = [name.lower() for name in lines[0]] if lines else []
    if file_column(names) is None:
        raise BadInput(f"{where} needs the header file,label in its first line, not {header!r}.")
    _check_cells(names, lines, where)
    filled = (line + [None] * (len(names) - len(line)) for line in lines[1:] if any(line))
    return [dict(zip(names, line, strict=False)) for line in filled]


def _check_cells(names: list[str], lines: list[list[Any]], where: str) -> None:
    """Raises BadInput about columns of one name, and lines with more cells than the header."""
    repeated = [name for name in names if name and names.count(name) > 1]
    if repeated:
        raise BadInput(f"{where} has several columns {repeated[0]}; remove all except one.")
    for line in lines:
        if any(line[len(names) :]):
            raise BadInput(
                f"{where} has more cells than the header in the line of {line[0]}: a name with the "
                f"separator in it needs quotes."
            )


def _of_lines(text: str, where: str) -> Rows:
    rows = [_parsed(line, where) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) and file_column(row) for row in rows):
        raise BadInput(f'{where} needs an object in each line, as {{"file_name": "a.png", ...}}.')
    return rows


def _of_parquet(content: bytes, where: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {where}: {one_line(str(error)).rstrip('.')}.") from error
    if file_column(table.column_names) is None:
        raise BadInput(f"{where} needs a column file_name; its columns are {table.column_names}.")
    return table.to_pylist()


def file_column(names: Iterable[str]) -> str | None:
    """The column that names files."""
    present = set(names)
    return next((name for name in FILE_COLUMNS if name in present), None)


def _of_rows(rows: Rows, where: str, column: str | None) -> Labels:
    wanted = column or LABEL_COLUMN
    columns = sorted({name for row in rows for name in row})
    # a CSV file has its columns' names in small letters
    wanted = wanted if wanted in columns else wanted.lower()
    if rows and wanted not in columns:
        raise BadInput(
            f"{where} needs the header file,label: it has no column {column or LABEL_COLUMN}, but "
            f"{', '.join(columns)}; choose one with --label-column."
        )
    return labels_of_rows(rows, wanted, where)


def labels_of_rows(rows: Rows, column: str, where: str) -> Labels:
    """The labels in a column of a table, by the names of the images.

    Raises:
        BadInput: if a label is neither a whole number nor a name.
    """
    pairs = [(row[file_column(row) or ""], row.get(column)) for row in rows]
    texts = [label for _, label in pairs if isinstance(label, str)]
    numbers = {text: number_of(text) for text in texts if text}
    if None not in numbers.values():
        pairs = [(name, numbers.get(str(label), label)) for name, label in pairs]
    return _checked(pairs, where)


def parse_json(content: bytes, where: str) -> Labels:
    """The labels in a JSON file such as ``dataset.json``; none if it says that there are none.

    Args:
        content: the content of the file.
        where: its name in messages.

    Raises:
        BadInput: if it holds something else.
    """
    pairs = _pairs(_parsed(_text(content, where), where))
    if pairs is None or not all(_is_pair(pair) for pair in pairs):
        raise BadInput(
            f'{where} needs labels as {{"file": label}} or {{"labels": [["file", 3], ...]}}.'
        )
    return _checked(pairs, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError as error:
        raise BadInput(f"{where} is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys must not have two values.

    Raises:
        ValueError: if one has.
    """
    found = dict[str, Any]()
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"two labels for {key}: {found[key]} and {value}")
        found[key] = value
    return found


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
    labels = Labels()
    filled = ((given, as_whole(label)) for given, label in pairs if label not in (None, ""))
    for given, label in filled:
        known = isinstance(label, int | str) and not isinstance(label, bool)
        if not known or (isinstance(label, int) and abs(label) > LARGEST_LABEL):
            raise BadInput(
                f"{where} has the label {str(label)[:MOST_SHOWN]} for {given}; "
                "labels are whole numbers from 0 to 2^63 - 1 or names."
            )
        name = _posix(given)
        if labels.setdefault(name, label) != label:
            raise BadInput(f"{where} has two labels for {given}: {labels[name]} and {label}.")
    _check_spellings({label for label in labels.values() if isinstance(label, str)}, where)
    return labels


def _check_spellings(texts: set[str], where: str) -> None:
    """Raises BadInput about a number that is written in two ways, beside names."""
    seen = dict[str, str]()
    for text in sorted(texts):
        whole, point, fraction = text.partition(".")
        is_number = whole.removeprefix("-").isdecimal() and (fraction or "0").isdecimal()
        plain = text.rstrip("0").rstrip(".") if is_number and point else text
        if seen.setdefault(plain, text) != text:
            raise BadInput(
                f"{where} has the labels {seen[plain]} and {text}, which are the same number; "
                "write it in one way."
            )


def _posix(name: object) -> str:
    return normalised(PurePosixPath(str(name).replace("\\", "/")).as_posix())
