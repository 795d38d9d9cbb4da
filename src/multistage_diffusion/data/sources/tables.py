"""Images in a column of a table, whatever the table is stored in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from multistage_diffusion.data.sources.archives import open_bytes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.errors import BadInput

__all__ = ["Columns", "Table", "find_columns"]


class Columns(NamedTuple):
    """The columns of a table that are read."""

    image: str
    label: str | None

    @property
    def names(self) -> list[str]:
        """The names of both, or of the first if there is no label."""
        return [self.image] if self.label is None else [self.image, self.label]


@dataclass(frozen=True)
class Table:
    """Rows with named columns, one of which holds images."""

    source: str
    columns: Columns
    features: Mapping[str, Any]
    """The types of its columns, as ``datasets`` gives them."""
    count: int
    """Number of rows."""
    rows: Callable[[], Iterable[Mapping[str, Any]]]
    """Iterates over the columns that are read; a cell of an image has ``bytes`` and ``path``."""
    identity: Callable[[], object]
    """A value that changes when the table does, except for the files its rows point to."""
    paths: Callable[[], Iterable[str | None]]
    """The path of each image, which is that of a file if the table only points to it."""

    def listing(self, notes: tuple[str, ...] = ()) -> Listing:
        """The images of the table, in the order of its rows."""
        label = self.columns.label
        classes = getattr(self.features[label], "names", None) if label else None
        return Listing(
            entries=self._entries,
            source=self.source,
            count=lambda: self.count,
            identity=self._identity_with_files,
            classes=tuple(classes or ()),
            notes=notes,
        )

    def _identity_with_files(self) -> list[object]:
        outside = sorted({path for path in self.paths() if path and Path(path).is_file()})
        return [self.identity(), self.columns.image, stamps(map(Path, outside))]

    def _entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self.rows()):
            cell = row[self.columns.image] or {}
            name = cell.get("path") or str(number)
            where = f"{self.source} row {number}"
            label = _label(row, self.columns.label, where)
            yield Entry(name, where, partial(_open, cell), label)


def find_columns(features: Mapping[str, Any], source: str, label_column: str | None) -> Columns:
    """The columns of images and labels: the first of images, and the first class label.

    Args:
        features: the types of the columns.
        source: the name of the table.
        label_column: the column of labels, if another one than the first class label.

    Raises:
        BadInput: if there is no column of images, or none of the name that is given.
    """
    import datasets

    image = next((name for name, feature in features.items() if _is_image(feature)), None)
    if image is None:
        raise BadInput(f"{source} has no column of images; its columns are {list(features)}.")
    if label_column is not None and label_column not in features:
        raise BadInput(
            f"{source} has no column {label_column!r} for labels; its columns are {list(features)}."
        )
    kinds = features.items()
    labels = (name for name, feature in kinds if isinstance(feature, datasets.ClassLabel))
    return Columns(image, label_column or next(labels, None))


def _is_image(feature: Any) -> bool:
    """Whether a column has the Hugging Face image feature, or at least its fields."""
    import datasets

    has_fields = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    return has_fields or isinstance(feature, datasets.Image)


def _label(row: Mapping[str, Any], column: str | None, where: str) -> Label:
    value = row[column] if column else None
    if value is not None and not isinstance(value, int | str):
        raise BadInput(
            f"{where} has {value!r} in the column {column}; "
            "labels are whole numbers from 0 or names."
        )
    return value


def _open(cell: Mapping[str, Any]) -> Image.Image:
    if cell.get("bytes") is not None:
        return open_bytes(cell["bytes"])
    if not cell.get("path"):
        raise ValueError("the row holds no image")
    return Image.open(cell["path"])
