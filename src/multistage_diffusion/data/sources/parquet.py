"""Parquet files with a column of images."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing, stamps
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tables import Table, find_columns
from multistage_diffusion.errors import BadInput

__all__ = ["PARQUET", "list_parquet"]

ROWS_AT_A_TIME = 256


def list_parquet(paths: Sequence[Path], source: str, label_column: str | None) -> Listing:
    """The images of parquet files, one file after the other.

    Args:
        paths: the files.
        source: the name of all of them together.
        label_column: the column of labels; by default the first class label.

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
    columns = find_columns(features, source, label_column)
    table = Table(
        source=source,
        columns=columns,
        features=features,
        count=sum(file.metadata.num_rows for file in files),
        rows=partial(_rows, source, files, columns.names),
        identity=partial(stamps, paths),
        paths=partial(_image_paths, source, files, columns.image),
    )
    return table.listing()


def _rows(source: str, files: Sequence[Any], columns: list[str]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa

    try:
        for file in files:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"Cannot read {source}: {error}.") from error


def _image_paths(source: str, files: Sequence[Any], image: str) -> Iterator[str | None]:
    """The path of each image, without reading images."""
    for row in _rows(source, files, [f"{image}.path"]):
        yield (row[image] or {}).get("path")


def _read(location: Location, options: ReadOptions) -> Listing:
    return list_parquet(location.paths, location.name, options.label_column)


PARQUET = Source(
    read=_read,
    suffixes=(".parquet",),
    takes_patterns=True,
    options=frozenset({"labels", "label_column"}),
)
