"""Hugging Face data sets: on disk as ``save_to_disk`` or the hub stores them, or from the hub."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from multistage_diffusion.data.formats import has_image_suffix, is_foreign
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.left_out import LeftOut
from multistage_diffusion.data.sources.listing import Listing, stamps
from multistage_diffusion.data.sources.parquet import list_parquet
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.splits import choose_split, split_of
from multistage_diffusion.data.sources.tables import (
    Columns,
    Table,
    content_and_path,
    find_columns,
    has_paths,
)
from multistage_diffusion.errors import BadInput

__all__ = ["ARROW", "HUB", "TABLE_FOLDER"]

FILE_SUFFIXES = (".parquet", ".arrow")
SAVED_FILES = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


def holds_table(folder: Path) -> bool:
    """Whether a folder is a Hugging Face data set: parquet or arrow files, and no image files."""
    names = _names_in(folder)
    has_files = any(name.lower().endswith(FILE_SUFFIXES) for name in names)
    if not has_files and not _is_saved(folder):
        return False
    return not any(map(has_image_suffix, names))


def _names_in(folder: Path) -> list[str]:
    """The paths inside a folder, in order, without those that are hidden or foreign."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    return [name for name in names if not is_foreign(name)]


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
    files = [folder / name for name in _names_in(folder) if (folder / name).is_file()]
    suffixes = {path.suffix.lower() for path in files}
    suffix = next(suffix for suffix in FILE_SUFFIXES if suffix in suffixes)
    splits: dict[str, list[Path]] = {}
    for path in (path for path in files if path.suffix.lower() == suffix):
        split = split_of(path.relative_to(folder).as_posix())
        splits.setdefault(split, []).append(path)
    name, notes = choose_split(list(splits), str(folder), options.split)
    if suffix == ".parquet":
        listing = list_parquet(splits[name], str(folder), options)
    else:
        listing = list_arrow(splits[name], str(folder), options)
    others = tuple(
        path.relative_to(folder).as_posix() for path in files if path.suffix.lower() != suffix
    )
    left_out = (LeftOut(f"no {suffix} files", others),) if others else ()
    return replace(listing, notes=(*notes, *listing.notes), left_out=left_out)


def list_arrow(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    """The images of arrow files, one file after the other."""
    import datasets

    def together() -> Any:
        parts = [datasets.Dataset.from_file(str(path)) for path in paths]
        return datasets.concatenate_datasets(parts)

    return _list_dataset(_read(source, together), source, options)


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
    try:
        return read()
    except Exception as error:  # damaged files make it fail in any way
        reason = f"{type(error).__name__}, {_one_line(error)}"
        raise BadInput(f"Cannot read {source}: {reason}.") from error


def _list_dataset(dataset: Any, source: str, options: ReadOptions) -> Listing:
    """The images of a data set, or of one of its splits."""
    notes: tuple[str, ...] = ()
    if isinstance(dataset, dict):
        name, notes = choose_split(list(dataset), source, options.split)
        dataset = dataset[name]
    columns = find_columns(dataset.features, source, options, partial(_first, dataset))
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


def _first(dataset: Any, column: str) -> Any:
    """The first cell of a column that is not empty."""
    cells = (row[column] for row in dataset.select_columns([column]))
    return next((cell for cell in cells if cell is not None), None)


def _stamps(dataset: Any) -> list[object]:
    """The fingerprint that ``datasets`` computes, and the files that it reads."""
    files = (Path(file["filename"]) for file in dataset.cache_files)
    return [dataset._fingerprint, *stamps(files)]


def _image_paths(dataset: Any, image: str) -> list[str | None]:
    """The path of each image that may have one, without reading the images themselves."""
    import pyarrow.compute as pc

    column = dataset.data.column(image)
    if has_paths(column.type, inside=True):
        column = pc.struct_field(column, "path")
    elif not has_paths(column.type):
        return []
    return [content_and_path(cell)[1] for cell in column.to_pylist()]


def _rows(source: str, dataset: Any) -> Iterator[Mapping[str, Any]]:
    rows = iter(dataset)
    while (row := _read(source, partial(next, rows, None))) is not None:
        yield row


TABLE_FOLDER = Source(
    read=lambda location, options: list_table_folder(location.paths[0], options),
    accepts=lambda location: location.is_folder and holds_table(location.paths[0]),
    options=frozenset({"labels", "label_column", "image_key", "split"}),
)
ARROW = Source(
    read=lambda location, options: list_arrow(location.paths, location.name, options),
    suffixes=(".arrow",),
    options=frozenset({"labels", "label_column", "image_key"}),
)
HUB = Source(
    read=lambda location, options: list_hub(location.given, options),
    accepts=lambda location: not location.paths and may_be_hub_id(location.given),
    options=frozenset({"labels", "label_column", "image_key", "split"}),
)
