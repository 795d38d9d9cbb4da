"""Labels in files beside images: ``dataset.json``, and Hugging Face's ``metadata`` files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from multistage_diffusion.data.label_files import (
    DATASET_JSON,
    Labels,
    labels_of_rows,
    parse_json,
    parse_rows,
)
from multistage_diffusion.data.labels import normalised
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.errors import BadInput

__all__ = ["WRITTEN_HERE", "Read", "check_matches", "given_labels", "is_about_images"]

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of Hugging Face's image folders
WRITTEN_HERE = frozenset({"samples.json", "evaluations.json"})
"""What this program writes beside the images that it draws."""
Read = Callable[[str], bytes]


def is_about_images(name: str) -> bool:
    """Whether a file says something about the images beside it."""
    last = PurePosixPath(name).name
    return last == DATASET_JSON or last.lower() in METADATA or last in WRITTEN_HERE


def given_labels(
    about: Sequence[str],
    images: Sequence[str],
    kept: Sequence[str],
    source: str,
    options: ReadOptions,
    read: Read,
) -> tuple[Labels | None, tuple[str, ...], tuple[str, ...]]:
    """The labels that files beside the images give, these files, and notes about them.

    None if there are no such files, or labels come from elsewhere.

    Args:
        about: the files that say something about images.
        images: all images.
        kept: those of the part that is read.
        source, options: the source and how it is read.
        read: gives the content of a file.
    """
    found = sorted(name for name in about if PurePosixPath(name).name not in WRITTEN_HERE)
    edm = [name for name in found if name.endswith(DATASET_JSON) and _is_at_top(name, images)]
    if options.labels is not None:
        others = [name for name in found if Path(source, name) != options.labels]
        unread = (f"{named(others)} is not read, as --labels is given",) if others else ()
        return None, (), unread
    if edm:
        return _of_edm(edm[0], found, images, source, read)
    names = [name for name in found if PurePosixPath(name).name.lower() in METADATA]
    tables = [name for name in names if _is_around_any(name, kept)]
    if not tables:
        _refuse_column(source, options.label_column)
        return None, (), ()
    return _of_metadata(tables, images, source, options.label_column, read)


def _refuse_column(source: str, column: str | None) -> None:
    if column is not None:
        raise BadInput(
            f"--label-column is for tables, WebDataset shards and metadata.csv, and {source} is "
            "none; use --labels FILE."
        )


def _is_at_top(name: str, images: Sequence[str]) -> bool:
    """Whether a file lies at the top of all images: there, or in a folder around all of them."""
    folder = PurePosixPath(name).parent
    return all(PurePosixPath(image).is_relative_to(folder) for image in images)


def _is_around_any(name: str, images: Sequence[str]) -> bool:
    """Whether a file lies in a folder around some of the images."""
    folder = PurePosixPath(name).parent
    return any(PurePosixPath(image).is_relative_to(folder) for image in images)


def _of_edm(
    file: str, found: Sequence[str], images: Sequence[str], source: str, read: Read
) -> tuple[Labels, tuple[str, ...], tuple[str, ...]]:
    where = f"{source}/{file}"
    folder = PurePosixPath(file).parent
    inside = parse_json(read(file), where)
    labels = {normalised((folder / name).as_posix()): label for name, label in inside.items()}
    check_matches(labels, images, where)
    said = f"labels are those of {where}" if labels else f"{where} says that there are no labels"
    others = [name for name in found if name != file]
    unread = (f"{named(others)} is not read, as {file} is there",) if others else ()
    return labels, (file,), (said, *unread)


def _of_metadata(
    tables: Sequence[str], images: Sequence[str], source: str, column: str | None, read: Read
) -> tuple[Labels | None, tuple[str, ...], tuple[str, ...]]:
    labels: Labels = {}
    without = list[str]()
    for file in tables:
        where = f"{source}/{file}"
        suffix = PurePosixPath(file).suffix.lower()
        rows = parse_rows(read(file), suffix, where)
        columns = sorted({name for row in rows for name in row})
        wanted = column or "label"
        if wanted not in columns:
            listed = f"{where} has no column {wanted}, but {', '.join(columns)}"
            if column is not None:
                raise BadInput(f"{listed}.")
            without.append(listed)
            continue
        folder = PurePosixPath(file).parent
        for name, label in labels_of_rows(rows, wanted, where).items():
            path = normalised((folder / name).as_posix())
            if labels.setdefault(path, label) != label:
                raise BadInput(f"{where} gives {path} another label than {named(tables)}.")
    if without and labels:
        raise BadInput(f"{without[0]}; all of {named(tables)} need it, or none.")
    if without:
        return None, (), tuple(f"{one}; choose one with --label-column" for one in without)
    where = f"{source}/{named(tables)}"
    check_matches(labels, images, where)
    return labels, tuple(tables), (f"labels are those of {where}",)


def check_matches(labels: Labels, images: Iterable[str], where: str) -> None:
    """Raises BadInput if there are labels for images that do not exist; names them."""
    names = {normalised(name) for name in images}
    unused = [name for name in labels if name not in names]
    if unused:
        example = next(iter(sorted(names)), "none")
        raise BadInput(
            f"{where} has labels for {len(unused)} files that are no images of the data: "
            f"{named(unused)}; files are named as they lie in the data, like {example}."
        )
