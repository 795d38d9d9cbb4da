"""What the files of a folder or of an archive are: images, labels, parts, and files left out."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from multistage_diffusion.data.formats import has_image_suffix, is_foreign
from multistage_diffusion.data.labels import in_order_of_names, normalised
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.beside import Read, given_labels, is_about_images
from multistage_diffusion.data.sources.left_out import (
    FOREIGN,
    NO_IMAGE,
    UNREADABLE,
    LeftOut,
    left_out_notes,
    named,
)
from multistage_diffusion.data.sources.listing import Label
from multistage_diffusion.data.sources.prefixes import about_prefixes
from multistage_diffusion.data.sources.splits import are_splits, choose_split, parts_among
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import is_of_lock

__all__ = ["Arranged", "arrange", "of_subfolders"]

NOT_OPENED = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".exr",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
)
"""Suffixes of images that Pillow does not open."""
PICTURES = {"memorisation.png": "evaluations.json", "contact-sheet.png": "inspection.json"}
"""Pictures that this program draws, each with the file that lies beside it then."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PACKED = "archives inside the data; unpack them, or give one as --data"
DRAWN = "pictures that evaluate or inspect drew"


@dataclass(frozen=True)
class Arranged:
    """The files of a folder or archive."""

    labels: Mapping[str, Label]
    """The label of each image by its path, in the order of the paths."""
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    label_files: tuple[str, ...] = ()
    """Files whose content decides about the labels."""


def arrange(
    files: Iterable[str],
    source: str,
    options: ReadOptions,
    read: Read,
    is_image: Callable[[str], bool],
    before: Sequence[LeftOut] = (),
) -> Arranged:
    """Classifies files.

    Args:
        files: their paths inside the source, parts separated by ``/``.
        source: the source, for messages.
        options: how it is read.
        read: gives the content of a file.
        is_image: whether a file without the suffix of an image is one.
        before: what was left out before.

    Raises:
        BadInput: if there are no images, or an option does not apply.
    """
    present = set(files)
    foreign, ours = _parted((name for name in present if not _is_of_lock(name)), is_foreign)
    about, remaining = _parted(ours, is_about_images)
    drawn, others = _parted(remaining, lambda name: _is_drawn_here(name, present))
    images, rest = _parted(others, lambda name: has_image_suffix(name) or is_image(name))
    unreadable, others = _parted(rest, lambda name: name.lower().endswith(NOT_OPENED))
    archives, no_images = _parted(others, lambda name: name.lower().endswith(ARCHIVES))
    lists = {
        FOREIGN: foreign,
        DRAWN: drawn,
        UNREADABLE: unreadable,
        PACKED: archives,
        NO_IMAGE: no_images,
    }
    left_out = [LeftOut(reason, tuple(sorted(names))) for reason, names in lists.items()]
    if not images:
        raise BadInput(_no_images(source, [*left_out, *before]))
    ordered = sorted(images, key=lambda name: PurePosixPath(name).parts)
    kept, other_parts = _of_one_split(ordered, source, options.split)
    given, used, notes = given_labels(about, ordered, kept, source, options, read)
    if given is None:
        labels, remark = of_subfolders(kept, options.skip_unlabelled)
        if not remark and not any(labels):
            remark = about_prefixes(kept) or _about_tables(no_images)
        notes += remark if options.labels is None else ()
    else:
        labels = [given.get(normalised(name)) for name in kept]
    return Arranged(
        dict(zip(kept, labels, strict=True)),
        tuple(entry for entry in (*left_out, *other_parts, *before) if entry.names),
        (*notes, *_about_parts(kept)),
        used,
    )


def _parted(names: Iterable[str], chosen: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The names that are chosen, and the others."""
    parts: tuple[list[str], list[str]] = ([], [])
    for name in names:
        parts[0 if chosen(name) else 1].append(name)
    return parts


def _is_of_lock(name: str) -> bool:
    """Whether a command at work in the folder wrote the file."""
    return is_of_lock(PurePosixPath(name))


def _is_drawn_here(name: str, present: Container[str]) -> bool:
    """Whether a file is a picture about images that this program drew beside them."""
    path = PurePosixPath(name)
    return path.name in PICTURES and str(path.with_name(PICTURES[path.name])) in present


def _no_images(source: str, left_out: Iterable[LeftOut]) -> str:
    found = "; ".join(left_out_notes(left_out))
    return f"{source} holds no images that can be read{f' ({found})' if found else ''}."


def _of_one_split(
    names: Sequence[str], source: str, wanted: str | None
) -> tuple[Sequence[str], list[LeftOut]]:
    """The images of the part to read, and those of the other parts."""
    level, folders = _first_folders(names)
    if not folders or not are_splits(folders) or (len(folders) == 1 and wanted is None):
        if wanted is not None:
            raise BadInput(
                f"--split is for data sets in parts such as train, val and test, and {source} has "
                "no parts; leave it out."
            )
        return names, []
    chosen, _ = choose_split(folders, source, wanted)
    others = [folder for folder in folders if folder != chosen]
    inside: dict[str, list[str]] = {folder: [] for folder in (chosen, *others, "")}
    for name in names:
        parts = PurePosixPath(name).parts[:-1]
        inside[parts[level] if level < len(parts) else ""].append(name)
    left_out = [
        LeftOut(f"in the part {folder}, as {chosen} is read (--split)", tuple(inside[folder]))
        for folder in others
    ]
    return inside[chosen], [*left_out, LeftOut("in no part", tuple(inside[""]))]


def _about_tables(others: Sequence[str]) -> tuple[str, ...]:
    """A remark about tables beside images without labels, which may hold them."""
    tables = sorted(name for name in others if PurePosixPath(name).suffix.lower() in TABLES)
    if not tables:
        return ()
    verb = "is" if len(tables) == 1 else "are"
    return (f"no labels: {named(tables)} {verb} not read; give --labels FILE if it holds them",)


def _about_parts(names: Sequence[str]) -> tuple[str, ...]:
    """A remark about folders that are named as parts of the data and yet are read together."""
    paths = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(max(map(len, paths), default=0)):
        folders = sorted({parts[level] for parts in paths if level < len(parts)})
        if parts := parts_among(folders):
            return (f"named as parts of the data, but read with all: {named(parts)}",)
    return ()


def _first_folders(names: Sequence[str]) -> tuple[int, list[str]]:
    """The first level of folders where there are several or one is named as a part; their names."""
    paths = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(max(map(len, paths), default=0)):
        folders = list(dict.fromkeys(parts[level] for parts in paths if level < len(parts)))
        if len(folders) > 1 or are_splits(folders):
            return level, folders
    return 0, []


def of_subfolders(
    names: Sequence[str], skip_unlabelled: bool = False
) -> tuple[list[Label], tuple[str, ...]]:
    """The subfolder of each image, at the first level where there are several; else None for all.

    Images that lie beside such subfolders, in none of them, make all others unlabelled too, unless
    they are to be skipped.

    Args:
        names: the paths of the images inside the data set.
        skip_unlabelled: whether images without a label are to be left out.

    Returns:
        The labels, and a remark if subfolders are not labels, because of other images or because
        they lie deeper.
    """
    paths = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(max(map(len, paths), default=0)):
        folders = {normalised(parts[level]) for parts in paths if level < len(parts)}
        if len(folders) > 1:
            labels = [normalised(p[level]) if level < len(p) else None for p in paths]
            kept, remark = _without_strays(names, labels, skip_unlabelled)
            return kept, remark or _about_deeper(paths, level)
    return [None] * len(names), ()


def _without_strays(
    names: Sequence[str], labels: list[str | None], skip_unlabelled: bool
) -> tuple[list[Label], tuple[str, ...]]:
    strays = [name for name, label in zip(names, labels, strict=True) if label is None]
    if not strays or skip_unlabelled:
        return list(labels), ()
    folders = in_order_of_names({label for label in labels if label is not None})
    verb = "lies" if len(strays) == 1 else "lie"
    remark = (
        f"no labels: {named(strays)} {verb} beside the folders {named(folders)} "
        "(--skip-unlabelled leaves such images out and makes the folders labels)"
    )
    return [None] * len(names), (remark,)


def _about_deeper(paths: Sequence[tuple[str, ...]], level: int) -> tuple[str, ...]:
    """A remark about several folders inside of those that are labels."""
    inside = in_order_of_names({normalised(p[level + 1]) for p in paths if len(p) > level + 1})
    if len(inside) < 2:
        return ()
    folders = in_order_of_names({normalised(p[level]) for p in paths if len(p) > level})
    return (
        f"labels are the folders {named(folders)}; those inside of them, {named(inside)}, are not",
    )
