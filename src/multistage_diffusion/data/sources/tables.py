"""Images in a column of a table, whatever the table is stored in."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from multistage_diffusion.data.formats import has_image_suffix, is_image_content
from multistage_diffusion.data.labels import as_whole
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.errors import BadInput

__all__ = ["Columns", "Table", "find_columns"]

MOST_SHOWN = 80  # characters of a cell in a message


class Columns(NamedTuple):
    """The columns of a table that are read."""

    image: str
    label: str | None
    notes: tuple[str, ...] = ()
    """What to know about the others."""

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
    """Iterates over the columns that are read. The cell of an image has ``bytes`` and ``path``, or
    is one of them."""
    identity: Callable[[], object]
    """A value that changes when the table does, except for the files its rows point to."""
    paths: Callable[[], Iterable[str | None]]
    """The path of each image, which is that of a file if the table only points to it."""
    folder: Path = Path()
    """Where relative paths begin."""

    def listing(self, notes: tuple[str, ...] = ()) -> Listing:
        """The images of the table, in the order of its rows."""
        return Listing(
            entries=self._entries,
            source=self.source,
            count=lambda: self.count,
            identity=self._identity_with_files,
            classes=self._classes,
            notes=(*notes, *self.columns.notes),
        )

    @property
    def _classes(self) -> tuple[str, ...]:
        label = self.columns.label
        return tuple(getattr(self.features[label], "names", None) or ()) if label else ()

    def _identity_with_files(self) -> list[object]:
        outside = sorted({path for path in self.paths() if path and self._file(path).is_file()})
        return [self.identity(), self.columns.image, stamps(map(self._file, outside))]

    def _file(self, path: str) -> Path:
        """The file of a path, which may be relative to the table or to where the command runs.

        Its parts may be separated by backslashes, as Windows has them.
        """
        if "\\" in path and not (self.folder / path).is_file():
            path = path.replace("\\", "/")
        beside = self.folder / path
        return beside if beside.is_file() else Path(path)

    def _entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self.rows()):
            cell = row[self.columns.image]
            content, path = content_and_path(cell)
            where = f"{self.source} row {number}"
            label = _label(row, self.columns.label, where, bool(self._classes))
            yield Entry(path or str(number), where, partial(self._open, content, path), label)

    def _open(self, content: bytes | None, path: str | None) -> IO[bytes]:
        if content is not None:
            return io.BytesIO(content)
        if not path:
            raise ValueError("the row holds no image")
        return self._file(path).open("rb")


def content_and_path(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of an image in the cell of a table."""
    if isinstance(cell, Mapping):
        return cell.get("bytes"), cell.get("path")
    if isinstance(cell, str):
        return None, cell
    return (bytes(cell) if cell is not None else None), None


def has_paths(kind: Any, inside: bool = False) -> bool:
    """Whether a column of an Arrow type holds paths; ``inside``: in a field beside the bytes."""
    import pyarrow as pa

    if inside:
        return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_text(kind) for is_text in texts)


def find_columns(
    features: Mapping[str, Any],
    source: str,
    options: ReadOptions,
    first: Callable[[str], Any] = lambda _: None,
) -> Columns:
    """The columns of images and labels.

    Images are in the column that is asked for, the first one of the type of images, or the only one
    whose first cell holds the bytes of an image or names one; labels in the one that is asked for,
    or the first class label.

    Args:
        features: the types of the columns.
        source: the name of the table.
        options: ``image_key`` and ``label_column`` ask for columns.
        first: the first cell of a column that is not empty.

    Raises:
        BadInput: if there is no column of images, there are several, or none of a name given.
    """
    import datasets

    for name, use in ((options.image_key, "images"), (options.label_column, "labels")):
        if name is not None and name not in features:
            raise BadInput(
                f"{source} has no column {name!r} for {use}; its columns are {list(features)}."
            )
    kinds = features.items()
    labels = (name for name, feature in kinds if isinstance(feature, datasets.ClassLabel))
    image = options.image_key or _image_column(features, source, first)
    if not _is_image(features[image]):
        _check_cell(first(image), image, source)
    label = options.label_column or next(labels, None)
    others = [name for name in features if name not in (image, label)]
    unread = [] if options.image_key else [name for name in others if _is_image(features[name])]
    unlabelled = [] if label else [name for name in others if not _is_image(features[name])]
    return Columns(image, label, tuple(_about_columns(image, unread, unlabelled)))


def _about_columns(image: str, unread: Sequence[str], unlabelled: Sequence[str]) -> Iterator[str]:
    """Notes about further columns of images, and about columns that may hold labels."""
    if unread:
        yield f"images are read from the column {image}, not {named(unread)} (--image-key)"
    if unlabelled:
        yield (
            "no labels: no column has the type of class labels; --label-column chooses one of "
            f"{named(unlabelled, 10)}"
        )


def _image_column(features: Mapping[str, Any], source: str, first: Callable[[str], Any]) -> str:
    typed = [name for name, feature in features.items() if _is_image(feature)]
    if typed:
        return typed[0]
    found = [name for name in features if _is_image_cell(first(name))]
    if len(found) > 1:
        raise BadInput(
            f"{source} has images in the columns {', '.join(found)}; choose one with --image-key."
        )
    if not found:
        raise BadInput(f"{source} has no column of images; its columns are {list(features)}.")
    return found[0]


def _check_cell(cell: Any, column: str, source: str) -> None:
    """Raises BadInput if a column that was asked for holds something else than images."""
    fields = isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell)
    if cell is not None and not fields and not isinstance(cell, bytes | str):
        raise BadInput(
            f"{source} has {type(cell).__name__} in the column {column}; an image is the bytes or "
            "the path of a file, one in each row."
        )


def _is_image(feature: Any) -> bool:
    """Whether a column has the Hugging Face image feature, or at least its fields."""
    import datasets

    has_fields = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    return has_fields or isinstance(feature, datasets.Image)


def _is_image_cell(cell: Any) -> bool:
    """Whether a cell holds the bytes of an image or the path of one."""
    if isinstance(cell, Mapping):
        return any(map(_is_image_cell, content_and_path(cell)))
    if isinstance(cell, bytes):
        return is_image_content(io.BytesIO(cell))
    return isinstance(cell, str) and has_image_suffix(cell)


def _label(row: Mapping[str, Any], column: str | None, where: str, has_classes: bool) -> Label:
    value = as_whole(row[column]) if column else None
    if has_classes and value == -1:  # how data sets say that a row has no class
        return None
    if value is not None and not isinstance(value, int | str):
        raise BadInput(
            f"{where} has {repr(value)[:MOST_SHOWN]} in the column {column}; "
            "labels are whole numbers from 0 or names."
        )
    return value
