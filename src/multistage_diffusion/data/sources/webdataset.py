"""WebDataset shards: tar files in which the files of a sample follow each other.

A sample has a key and fields, ``key.field``, one of them an image: ``key.jpg`` or
``key.input.png``. Its class is in ``key.cls`` or ``key.json``. The key is the name up to its first
dot, unless names have further dots, as ``photo.0001.jpg`` beside ``photo.0001.cls``.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath

from multistage_diffusion.data.formats import has_image_suffix, is_foreign
from multistage_diffusion.data.labels import as_whole, number_of
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.files import of_subfolders
from multistage_diffusion.data.sources.left_out import FOREIGN, LeftOut, named
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tars import TAR_SUFFIXES, TarIndex, tar_files, tar_index
from multistage_diffusion.errors import BadInput

__all__ = ["WEBDATASET"]

LABEL_KEYS = ("label", "cls")  # of the JSON of a sample
WITHOUT_IMAGE = "of samples without an image"
FURTHER = "further images of their samples (--image-key chooses)"
Split = Callable[[str], tuple[str, str]]
"""From the name of a file to the key of its sample and the field it is."""


def at_first_dot(name: str) -> tuple[str, str]:
    """Key and field of a file by WebDataset's rule."""
    folder, _, last = name.rpartition("/")
    key, _, field = last.partition(".")
    return (f"{folder}/{key}" if folder else key), field.lower()


def at_last_dot(name: str) -> tuple[str, str]:
    """Key and field of a file whose key has dots."""
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix(), path.suffix.removeprefix(".").lower()


def is_image(name: str) -> bool:
    """Whether a file of a sample is an image."""
    return has_image_suffix(name) and not is_foreign(name)


def splitting(names: Sequence[str]) -> Split:
    """How the names of a data set are to be split into key and field.

    Keys have dots if an image shares such a key with a class or a description, or if images share
    the key before the first dot and none of their fields comes twice.
    """
    images = [name for name in names if is_image(name)]
    dotted = {at_last_dot(name)[0] for name in images if "." in at_first_dot(name)[1]}
    if dotted & {at_last_dot(name)[0] for name in names if not is_image(name)}:
        return at_last_dot
    pairs = [at_first_dot(name) for name in images]
    several = max(Counter(key for key, _ in pairs).values(), default=0) > 1
    dotted_fields = [field for _, field in pairs if "." in field]
    repeated = max(Counter(dotted_fields).values(), default=0) > 1
    plain = any("." not in field for _, field in pairs)
    return at_last_dot if several and dotted_fields and not repeated and not plain else at_first_dot


def holds_samples(names: Sequence[str]) -> bool:
    """Whether the files of a tar are WebDataset samples: images have a ``.cls`` of the same key.

    A ``.json`` of the same key counts too, except in a tar whose subfolders are labels, where it
    may be anything.
    """
    split = splitting(names)
    images = [name for name in names if is_image(name)]
    keys = {split(name)[0] for name in images}
    marks = ("cls",) if any(of_subfolders(images)[0]) else ("cls", "json")
    return any(split(name)[0] in keys for name in names if split(name)[1] in marks)


@dataclass(frozen=True)
class _Samples:
    """Which image of each sample is read."""

    images: list[set[str]]
    """The images that are read, of each shard."""
    indices: list[TarIndex]
    """The files of each shard."""
    split: Split
    left_out: tuple[LeftOut, ...]


def list_shards(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    """The images of shards, in their order, read from beginning to end.

    Args:
        paths: the shards.
        source: the name of all of them together.
        options: ``label_column`` is the key of a sample's JSON that holds its label; by default its
            ``.cls`` does, else ``label`` or ``cls`` of its JSON. ``image_key`` chooses among
            several images of a sample.
    """
    samples = _chosen_images(paths, options.image_key)

    def entries() -> Iterator[Entry]:
        shards = zip(paths, samples.images, samples.indices, strict=True)
        return (
            entry
            for path, images, index in shards
            for entry in _entries(path, images, index, samples.split, options.label_column)
        )

    count = sum(map(len, samples.images))
    if not count:
        raise BadInput(f"{source} holds no images{_wanted(options.image_key)}.")
    return Listing(
        entries, source, lambda: count, partial(stamps, paths), left_out=samples.left_out
    )


def _wanted(key: str | None) -> str:
    return f" of the field {key} (--image-key)" if key else ""


def _chosen_images(paths: Sequence[Path], key: str | None) -> _Samples:
    indices = [tar_index(path, sniff=False) for path in paths]
    split = splitting([name for index in indices for name in index.files])
    read = list[set[str]]()
    further, without, foreign = list[str](), list[str](), list[str]()
    for path, index in zip(paths, indices, strict=True):
        foreign += [name for name in index.files if is_foreign(name)]
        read.append(set())
        files = [name for name in index.files if not is_foreign(name)]
        complete = set[str]()
        for sample, grouped in groupby(files, lambda name: split(name)[0]):
            group = list(grouped)
            _check_together(sample, complete, path)
            images = {name: split(name)[1] for name in group if is_image(name)}
            image = _image_of(images, key, f"{path}/{sample}")
            read[-1] |= {image} if image else set()
            further += [name for name in images if name != image]
            without += [] if images else group
    lists = {FURTHER: further, WITHOUT_IMAGE: without, FOREIGN: foreign}
    left_out = [LeftOut(reason, tuple(names)) for reason, names in lists.items() if names]
    left_out += [entry for index in indices for entry in index.left_out]
    return _Samples(read, indices, split, tuple(left_out))


def _check_together(sample: str, complete: set[str], path: Path) -> None:
    """Raises BadInput if other files lie between those of a sample, which would be lost."""
    if sample in complete:
        raise BadInput(
            f"The files of the sample {sample} do not follow each other in {path}; pack it in the "
            "order of names (tar --sort=name)."
        )
    complete.add(sample)


def _image_of(images: dict[str, str], key: str | None, where: str) -> str | None:
    """The name of the image of a sample that is read, if it has one.

    Args:
        images: the fields of its images by their names.
        key: the field that is wanted, with or without its suffix.
        where: the sample, for messages.

    Raises:
        BadInput: if there are several and none is wanted.
    """
    if key is not None:
        key = key.lower()  # as fields are
        chosen = [n for n, field in images.items() if key in (field, field.rpartition(".")[0])]
    else:
        plain = [name for name, field in images.items() if "." not in field]
        chosen = list(images) if len(images) == 1 or len(plain) != 1 else plain
    if len(chosen) > 1:
        raise BadInput(
            f"{where} has several images: {named(chosen, 6)}; choose one with --image-key, such as "
            f"--image-key {_shortest_key(images[chosen[0]])}."
        )
    return chosen[0] if chosen else None


def _shortest_key(field: str) -> str:
    return field.rpartition(".")[0] or field


def _entries(
    path: Path, images: set[str], index: TarIndex, split: Split, label_key: str | None
) -> Iterator[Entry]:
    ours = {name: number for name, number in index.files.items() if not is_foreign(name)}
    files = tar_files(path, lambda name, number: ours.get(name) == number)
    for key, group in groupby(files, lambda file: split(file[0])[0]):
        sample = dict(group)
        chosen = [name for name in sample if name in images]
        if chosen:
            fields = {split(name)[1]: content for name, content in sample.items()}
            label = _label(fields, label_key, f"{path}/{key}")
            opened = partial(io.BytesIO, sample[chosen[0]])
            yield Entry(chosen[0], f"{path}/{chosen[0]}", opened, label)


def _label(fields: dict[str, bytes], label_key: str | None, where: str) -> Label:
    if "cls" in fields and label_key is None:
        return _label_of_text(fields["cls"])
    about = _json(fields["json"], where) if "json" in fields else {}
    keys = LABEL_KEYS if label_key is None else (label_key,)
    key = next((key for key in keys if key in about), keys[0])
    value = as_whole(about.get(key))
    if isinstance(value, int | str):
        return value
    if label_key is not None or value is not None:
        raise BadInput(
            f"{where}.json has no whole number or name under {key!r}; its keys are {list(about)}; "
            "choose one with --label-column."
        )
    return None


def _label_of_text(content: bytes) -> Label:
    """The number or name in a ``.cls`` file; None if it is empty."""
    text = content.decode("utf-8", "replace").strip()
    number = number_of(text)
    return (text or None) if number is None else number


def _json(content: bytes, where: str) -> dict[str, object]:
    try:
        about = json.loads(content)
    except RecursionError as error:
        raise BadInput(f"{where}.json is not valid JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise BadInput(f"{where}.json is not valid JSON: {error}.") from error
    return about if isinstance(about, dict) else {}


def _is_shards(location: Location) -> bool:
    """Whether tar files are shards: several always, a single one if it holds samples."""
    if location.is_pattern:
        return True
    return holds_samples(list(tar_index(location.paths[0], sniff=False).files))


def _read(location: Location, options: ReadOptions) -> Listing:
    return list_shards(location.paths, location.name, options)


WEBDATASET = Source(
    read=_read,
    suffixes=TAR_SUFFIXES,
    accepts=_is_shards,
    takes_patterns=True,
    options=frozenset({"labels", "label_column", "image_key"}),
)
