"""Parquet files with a column of images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing, stamps
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tables import (
    Table,
    content_and_path,
    find_columns,
    has_paths,
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.text import one_line

__all__ = ["PARQUET", "list_parquet"]

ROWS_AT_A_TIME = 256


def list_parquet(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    """The images of parquet files, one file after the other.

    Args:
        paths: the files.
        source: the name of all of them together.
        options: which columns hold images and labels.

    Raises:
        BadInput: if one cannot be read or lacks a column that is needed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        files = [pq.ParquetFile(path) for path in paths]
        features = _features(files[0].schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {source}: {one_line(str(error)).rstrip('.')}.") from error
    columns = find_columns(features, source, options, partial(_first, source, files[0]))
    _check_columns(paths, files, columns.names)
    table = Table(
        source=source,
        columns=columns,
        features=features,
        count=sum(file.metadata.num_rows for file in files),
        rows=partial(_rows, source, files, columns.names),
        identity=partial(stamps, paths),
        paths=partial(_image_paths, source, files, columns.image),
        folder=paths[0].parent,
    )
    return table.listing()


def _features(schema: Any) -> dict[str, Any]:
    """The types of the columns; None for those that ``datasets`` does not know."""
    return {name: _feature(schema, name) for name in schema.names}


def _feature(schema: Any, name: str) -> Any:
    import datasets
    import pyarrow as pa

    metadata = _metadata_of(schema, name)
    try:
        one = pa.schema([schema.field(name)], metadata)
        return datasets.Features.from_arrow_schema(one)[name]
    except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException):
        return None


def _metadata_of(schema: Any, name: str) -> dict[bytes, bytes] | None:
    """What ``datasets`` noted about one column."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][name]
    except (ValueError, KeyError, TypeError):
        return None
    return {b"huggingface": json.dumps({"info": {"features": {name: noted}}}).encode()}


def _check_columns(paths: Sequence[Path], files: Sequence[Any], names: Sequence[str]) -> None:
    """Raises BadInput about the first file that lacks a column the others have."""
    for path, file in zip(paths, files, strict=True):
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise BadInput(
                f"{path} has no column {missing[0]!r}, unlike {paths[0]}; its columns are "
                f"{file.schema_arrow.names}."
            )


def _first(source: str, file: Any, column: str) -> Any:
    """The first cell of a column that is not empty."""
    rows = _rows(source, [file], [column])
    return next((row[column] for row in rows if row[column] is not None), None)


def _rows(source: str, files: Sequence[Any], columns: list[str]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    try:
        for file in files:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {source}: {one_line(str(error)).rstrip('.')}.") from error


def _image_paths(source: str, files: Sequence[Any], image: str) -> Iterator[str | None]:
    """The path of each image that may have one, without reading the images themselves."""
    for file in files:
        schema = file.schema_arrow
        kind = schema.field(schema.names.index(image)).type
        inside = has_paths(kind, inside=True)
        if inside or has_paths(kind):
            rows = _rows(source, [file], [f"{image}.path" if inside else image])
            yield from (content_and_path(row[image])[1] for row in rows)


def _read(location: Location, options: ReadOptions) -> Listing:
    return list_parquet(location.paths, location.name, options)


PARQUET = Source(
    read=_read,
    suffixes=(".parquet",),
    takes_patterns=True,
    options=frozenset({"labels", "label_column", "image_key"}),
)
