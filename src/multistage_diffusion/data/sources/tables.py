"""Images in a column: parquet and arrow files, and Hugging Face data sets on disk or from the hub."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.archives import from_bytes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.errors import BadInput

__all__ = [
    "SHARDS",
    "holds_shards",
    "list_hub",
    "list_parquet",
    "list_saved",
    "list_shard_folder",
    "may_be_hub_id",
]

SHARDS = (".parquet", ".arrow")
PARTS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


@dataclass(frozen=True)
class _Table:
    """Rows with named columns."""

    features: Mapping[str, Any]
    rows: Callable[[], Iterable[Mapping[str, Any]]]
    source: str
    count: int
    identity: Callable[[], object]
    """What changes with the table, but for the files its rows point to."""
    paths: Callable[[], Iterable[str | None]]
    """The path of each image, which is that of a file if the table only points to it."""


def holds_shards(folder: Path) -> bool:
    """Whether a folder is a Hugging Face data set: saved to disk, or parquet or arrow files."""
    return any((folder / name).is_file() for name in SAVED) or any(
        p.suffix in SHARDS for p in folder.rglob("*")
    )


def may_be_hub_id(source: str) -> bool:
    """Whether a name could be that of a data set on the hub: ``name`` or ``owner/name``."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is not None


def list_parquet(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    """The images of parquet files, one file after the other.

    Raises:
        BadInput: if one cannot be read or has no column of images.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        files = [pq.ParquetFile(path) for path in paths]
        features = datasets.Features.from_arrow_schema(files[0].schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {source}: {error}.") from error
    image, label = _columns(features, source, options.label_column)
    count = sum(file.metadata.num_rows for file in files)
    rows = partial(_parquet_rows, source, files, [column for column in (image, label) if column])
    pointers = partial(_parquet_rows, source, files, [f"{image}.path"])
    table = _Table(
        features,
        rows,
        source,
        count,
        partial(stamps, paths),
        lambda: ((row[image] or {}).get("path") for row in pointers()),
    )
    return _listing(table, image, label)


def _parquet_rows(
    source: str, files: Sequence[Any], columns: list[str]
) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    try:
        for file in files:
            for batch in file.iter_batches(256, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {source}: {error}.") from error


def list_saved(path: Path, options: ReadOptions) -> Listing:
    """The images of a data set that ``save_to_disk`` wrote, or of one ``.arrow`` file."""
    import datasets

    if path.is_file():
        return _list_arrow([path], str(path), options)
    return _of_dataset(
        _read(str(path), lambda: datasets.load_from_disk(str(path))), str(path), options
    )


def list_shard_folder(folder: Path, options: ReadOptions) -> Listing:
    """The images of a folder of parquet or arrow files, whose paths say which part of the data they belong to, as on the hub."""
    if any((folder / name).is_file() for name in SAVED):
        return list_saved(folder, options)
    kind = next(kind for kind in SHARDS if any(folder.rglob(f"*{kind}")))
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{kind}")):
        parts.setdefault(_part_of(path.relative_to(folder).as_posix()), []).append(path)
    name, notes = _choose_part(list(parts), str(folder), options.split)
    read = list_parquet if kind == ".parquet" else _list_arrow
    return replace(read(parts[name], str(folder), options), notes=notes)


def _part_of(name: str) -> str:
    """The part a file belongs to by the words of its path."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((part for part, names in PARTS.items() if words & names), "train")


def _list_arrow(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    import datasets

    shards = _read(source, lambda: [datasets.Dataset.from_file(str(path)) for path in paths])
    return _of_dataset(datasets.concatenate_datasets(shards), source, options)


def list_hub(name: str, options: ReadOptions) -> Listing:
    """The images of a data set on the Hugging Face hub, which is downloaded into the cache of ``datasets``.

    Raises:
        BadInput: if there is none of that name, or it cannot be reached.
    """
    import datasets

    try:
        with _without_retries_shown():
            found = datasets.load_dataset(name)
    except Exception as error:  # of the network, the hub, its files: whatever it is, the name did not lead to a data set
        raise BadInput(
            f"There is no folder or file {name}, and no data set of that name could be loaded "
            "from the Hugging Face hub: "
            f"{' '.join(str(error).split()).removesuffix('.')}."
        ) from error
    return _of_dataset(found, name, options)


@contextmanager
def _without_retries_shown() -> Iterator[None]:
    """Keeps the hub's client from a line for each of its attempts; the error at the end says enough."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read(source: str, read: Any) -> Any:
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        return read()
    except (pa.ArrowException, DatasetsError, OSError, ValueError) as error:
        raise BadInput(
            f"Cannot read {source}: {' '.join(str(error).split()).removesuffix('.')}."
        ) from error


def _of_dataset(found: Any, source: str, options: ReadOptions) -> Listing:
    """The images of a part of a Hugging Face data set."""
    import datasets

    notes: tuple[str, ...] = ()
    part = found
    if isinstance(found, dict):
        name, notes = _choose_part(list(found), source, options.split)
        part = found[name]
    features = part.features
    image, label = _columns(features, source, options.label_column)
    chosen = part.select_columns([column for column in (image, label) if column])
    if isinstance(features[image], datasets.Image):
        chosen = chosen.cast_column(image, datasets.Image(decode=False))
    table = _Table(
        features,
        partial(_rows, source, chosen),
        source,
        len(part),
        partial(_stamps, part),
        partial(_paths, part, image),
    )
    return _listing(table, image, label, notes)


def _stamps(part: Any) -> list[object]:
    """The fingerprint that ``datasets`` gives and the files it reads."""
    return [part._fingerprint, *stamps(Path(file["filename"]) for file in part.cache_files)]


def _paths(part: Any, image: str) -> list[str | None]:
    import pyarrow.compute as pc

    paths: list[str | None] = pc.struct_field(part.data.column(image), "path").to_pylist()
    return paths


def _rows(source: str, part: Any) -> Iterator[Mapping[str, Any]]:
    rows = iter(part)
    while (row := _read(source, partial(next, rows, None))) is not None:
        yield row


def _choose_part(
    parts: Sequence[str], source: str, split: str | None
) -> tuple[str, tuple[str, ...]]:
    """The part to read, and a note about those that are not read."""
    name = split or ("train" if "train" in parts else parts[0])
    if name not in parts or (split is None and name != "train" and len(parts) > 1):
        raise BadInput(f"{source} has the parts {', '.join(parts)}; choose one with --split.")
    others = [part for part in parts if part != name]
    return name, (
        f"the part {name} is read, not {', '.join(others)} (--split)",
    ) if others and split is None else ()


def _columns(
    features: Mapping[str, Any], source: str, label_column: str | None
) -> tuple[str, str | None]:
    """The names of the columns of images and labels."""
    import datasets

    image = next((name for name, feature in features.items() if _is_image(feature)), None)
    if image is None:
        raise BadInput(f"{source} has no column of images; its columns are {list(features)}.")
    if label_column is not None and label_column not in features:
        raise BadInput(
            f"{source} has no column {label_column!r} for labels; its columns are {list(features)}."
        )
    found = next(
        (name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)),
        None,
    )
    return image, label_column or found


def _is_image(feature: Any) -> bool:
    """Whether a column has the Hugging Face image feature, or at least its form."""
    import datasets

    return isinstance(feature, datasets.Image) or (
        isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    )


def _listing(table: _Table, image: str, label: str | None, notes: tuple[str, ...] = ()) -> Listing:
    names = getattr(table.features[label], "names", None) if label else None
    entries, count = partial(_entries, table, image, label), lambda: table.count
    return Listing(
        entries,
        table.source,
        count,
        partial(_identity, table, image),
        tuple(names or ()),
        notes=notes,
    )


def _identity(table: _Table, image: str) -> list[object]:
    outside = sorted({path for path in table.paths() if path and Path(path).is_file()})
    return [table.identity(), image, stamps(map(Path, outside))]


def _entries(table: _Table, image: str, label: str | None) -> Iterator[Entry]:
    for number, row in enumerate(table.rows()):
        cell = row[image] or {}
        where = f"{table.source} row {number}"
        yield Entry(
            cell.get("path") or str(number), where, partial(_open, cell), _label(row, label, where)
        )


def _label(row: Mapping[str, Any], column: str | None, where: str) -> Label:
    value = row[column] if column else None
    if value is not None and not isinstance(value, int | str):
        raise BadInput(
            f"{where} has {value!r} in the column {column}; labels are whole numbers from 0 or "
            "names."
        )
    return value


def _open(cell: Mapping[str, Any]) -> Image.Image:
    if cell.get("bytes") is not None:
        return from_bytes(cell["bytes"])
    if not cell.get("path"):
        raise ValueError("the row holds no image")
    return Image.open(cell["path"])
