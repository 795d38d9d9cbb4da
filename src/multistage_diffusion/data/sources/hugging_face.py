"""Hugging Face data sets: on disk as ``save_to_disk`` or the hub stores them, or from the hub."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from multistage_diffusion.data.decoding import is_image
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing, stamps
from multistage_diffusion.data.sources.parquet import list_parquet
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tables import Columns, Table, find_columns
from multistage_diffusion.errors import BadInput

__all__ = ["ARROW", "HUB", "TABLE_FOLDER"]

FILE_SUFFIXES = (".parquet", ".arrow")
SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
SAVED_FILES = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


def holds_table(folder: Path) -> bool:
    """Whether a folder is a Hugging Face data set: parquet or arrow files, and no image files."""
    has_files = any(path.suffix in FILE_SUFFIXES for path in folder.rglob("*"))
    if not has_files and not _is_saved(folder):
        return False
    return not any(is_image(path.relative_to(folder).as_posix()) for path in folder.rglob("*"))


def _is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return any((folder / name).is_file() for name in SAVED_FILES)


def list_table_folder(folder: Path, options: ReadOptions) -> Listing:
    """The images of a folder that ``save_to_disk`` wrote, or of parquet or arrow files.

    The paths of such files tell which split of the data they belong to, as on the hub.
    """
    import datasets

    if _is_saved(folder):
        saved = _read(str(folder), lambda: datasets.load_from_disk(str(folder)))
        return _list_dataset(saved, str(folder), options)
    suffix = next(suffix for suffix in FILE_SUFFIXES if any(folder.rglob(f"*{suffix}")))
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{suffix}")):
        split = _split_of(path.relative_to(folder).as_posix())
        splits.setdefault(split, []).append(path)
    name, notes = _choose_split(list(splits), str(folder), options.split)
    if suffix == ".parquet":
        listing = list_parquet(splits[name], str(folder), options.label_column)
    else:
        listing = list_arrow(splits[name], str(folder), options)
    return replace(listing, notes=notes)


def _split_of(name: str) -> str:
    """The split a file belongs to, by the words of its path."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, names in SPLITS.items() if words & names), "train")


def list_arrow(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    """The images of arrow files, one file after the other."""
    import datasets

    parts = _read(source, lambda: [datasets.Dataset.from_file(str(path)) for path in paths])
    return _list_dataset(datasets.concatenate_datasets(parts), source, options)


def may_be_hub_id(source: str) -> bool:
    """Whether a name may be that of a data set on the hub: ``name`` or ``owner/name``."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is not None


def list_hub(name: str, options: ReadOptions) -> Listing:
    """The images of a data set on the hub, downloaded into the cache of ``datasets``.

    Raises:
        BadInput: if there is none of that name, or it cannot be reached.
    """
    import datasets

    try:
        with _without_retry_messages():
            dataset = datasets.load_dataset(name)
    except Exception as error:  # network, hub or files: in any case the name gave no data set
        raise BadInput(
            f"There is no folder or file {name}, and no data set of that name could be loaded "
            f"from the Hugging Face hub: {_one_line(error)}."
        ) from error
    return _list_dataset(dataset, name, options)


@contextmanager
def _without_retry_messages() -> Iterator[None]:
    """Hides the line that the hub's client logs for each attempt: the final error is enough."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")


def _read(source: str, read: Callable[[], Any]) -> Any:
    """What ``read`` returns, with the errors of ``datasets`` as BadInput."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        return read()
    except (pa.ArrowException, DatasetsError, OSError, ValueError) as error:
        raise BadInput(f"Cannot read {source}: {_one_line(error)}.") from error


def _list_dataset(dataset: Any, source: str, options: ReadOptions) -> Listing:
    """The images of a data set, or of one of its splits."""
    notes: tuple[str, ...] = ()
    if isinstance(dataset, dict):
        name, notes = _choose_split(list(dataset), source, options.split)
        dataset = dataset[name]
    columns = find_columns(dataset.features, source, options.label_column)
    table = Table(
        source=source,
        columns=columns,
        features=dataset.features,
        count=len(dataset),
        rows=partial(_rows, source, _undecoded(dataset, columns)),
        identity=partial(_stamps, dataset),
        paths=partial(_image_paths, dataset, columns.image),
    )
    return table.listing(notes)


def _undecoded(dataset: Any, columns: Columns) -> Any:
    """The columns that are read, with images as they are stored."""
    import datasets

    chosen = dataset.select_columns(columns.names)
    if isinstance(dataset.features[columns.image], datasets.Image):
        return chosen.cast_column(columns.image, datasets.Image(decode=False))
    return chosen


def _stamps(dataset: Any) -> list[object]:
    """The fingerprint that ``datasets`` computes, and the files that it reads."""
    files = (Path(file["filename"]) for file in dataset.cache_files)
    return [dataset._fingerprint, *stamps(files)]


def _image_paths(dataset: Any, image: str) -> list[str | None]:
    """The path of each image, without reading images."""
    import pyarrow.compute as pc

    paths: list[str | None] = pc.struct_field(dataset.data.column(image), "path").to_pylist()
    return paths


def _rows(source: str, dataset: Any) -> Iterator[Mapping[str, Any]]:
    rows = iter(dataset)
    while (row := _read(source, partial(next, rows, None))) is not None:
        yield row


def _choose_split(
    splits: Sequence[str], source: str, wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """The split to read, and a note about those that are not read.

    Raises:
        BadInput: if there is none of the name that is wanted, or no obvious one.
    """
    name = wanted or ("train" if "train" in splits else splits[0])
    is_obvious = name == "train" or len(splits) == 1
    if name not in splits or (wanted is None and not is_obvious):
        raise BadInput(f"{source} has the parts {', '.join(splits)}; choose one with --split.")
    others = [split for split in splits if split != name]
    if wanted is not None or not others:
        return name, ()
    return name, (f"the part {name} is read, not {', '.join(others)} (--split)",)


TABLE_FOLDER = Source(
    read=lambda location, options: list_table_folder(location.paths[0], options),
    accepts=lambda location: location.is_folder and holds_table(location.paths[0]),
    options=frozenset({"labels", "label_column", "split"}),
)
ARROW = Source(
    read=lambda location, options: list_arrow(location.paths, location.name, options),
    suffixes=(".arrow",),
    options=frozenset({"labels", "label_column"}),
)
HUB = Source(
    read=lambda location, options: list_hub(location.given, options),
    accepts=lambda location: not location.paths and may_be_hub_id(location.given),
    options=frozenset({"labels", "label_column", "split"}),
)
