"""WebDataset shards: tar files in which the files of an image follow each other.

A sample is the image ``key.jpg`` with, optionally, its class in ``key.cls`` or ``key.json``.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path, PurePosixPath

from multistage_diffusion.data.decoding import is_image
from multistage_diffusion.data.labels import is_number, of_subfolders
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.archives import open_bytes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.tars import TAR_SUFFIXES, tar_files, tar_names
from multistage_diffusion.errors import BadInput

__all__ = ["WEBDATASET"]

LABEL_KEYS = ("label", "cls")  # of the JSON of a sample


def holds_samples(names: Sequence[str]) -> bool:
    """Whether the files of a tar are WebDataset samples: images have a ``.cls`` of the same key.

    A ``.json`` of the same key counts too, except in a tar whose subfolders are labels, where it
    may be anything.
    """
    images = [name for name in names if is_image(name)]
    keys = {_key(name) for name in images}
    marks = (".cls",) if any(of_subfolders(images)) else (".cls", ".json")
    return any(_key(name) in keys for name in names if name.endswith(marks))


def list_shards(paths: Sequence[Path], source: str, label_key: str | None) -> Listing:
    """The images of shards, in their order, read from beginning to end.

    Args:
        paths: the shards.
        source: the name of all of them together.
        label_key: key of a sample's JSON that holds its label. By default its ``.cls`` does, else
            ``label`` or ``cls`` of its JSON.
    """

    def entries() -> Iterator[Entry]:
        return (entry for path in paths for entry in _entries(path, label_key))

    @cache
    def count() -> int:
        return sum(_is_sample(name) for path in paths for name in tar_names(path))

    return Listing(entries, source, count, partial(stamps, paths))


def _key(name: str) -> str:
    """The path up to the first dot of its last part."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split(".")[0] or path.name))


def _is_sample(name: str) -> bool:
    """Whether a file is the image of a sample, not another one of it like ``key.mask.png``."""
    return is_image(name) and f"{_key(name)}{PurePosixPath(name).suffix}" == name


def _entries(path: Path, label_key: str | None) -> Iterator[Entry]:
    for key, files in groupby(tar_files(path), lambda file: _key(file[0])):
        sample = dict(files)
        image = _image_of(sample, f"{path}/{key}")
        if image is None:
            continue
        fields = {name.removeprefix(f"{key}."): content for name, content in sample.items()}
        label = _label(fields, label_key, f"{path}/{key}")
        yield Entry(image, f"{path}/{image}", partial(open_bytes, sample[image]), label)


def _image_of(sample: dict[str, bytes], where: str) -> str | None:
    """The name of the image of a sample, if it has one.

    Raises:
        BadInput: if it has several.
    """
    images = [name for name in sample if _is_sample(name)]
    if len(images) > 1:
        raise BadInput(f"{where} has several images: {', '.join(images)}; a sample needs one.")
    return images[0] if images else None


def _label(fields: dict[str, bytes], label_key: str | None, where: str) -> Label:
    if "cls" in fields and label_key is None:
        return _label_of_text(fields["cls"])
    about = _json(fields["json"], where) if "json" in fields else {}
    keys = LABEL_KEYS if label_key is None else (label_key,)
    value = next((about[key] for key in keys if key in about), None)
    if isinstance(value, int | str):
        return value
    if label_key is not None:
        raise BadInput(
            f"{where}.json has no whole number or name under {label_key!r}; "
            f"its keys are {list(about)}."
        )
    return None


def _label_of_text(content: bytes) -> Label:
    """The number or name in a ``.cls`` file; None if it is empty."""
    text = content.decode("utf-8", "replace").strip()
    return int(text) if is_number(text) else text or None


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
    return location.is_pattern or holds_samples(tar_names(location.paths[0]))


def _read(location: Location, options: ReadOptions) -> Listing:
    return list_shards(location.paths, location.name, options.label_column)


WEBDATASET = Source(
    read=_read,
    suffixes=TAR_SUFFIXES,
    accepts=_is_shards,
    takes_patterns=True,
    options=frozenset({"labels", "label_column"}),
)
