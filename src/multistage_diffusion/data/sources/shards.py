"""WebDataset shards: tar files in which all that belongs to an image stands together, ``key.jpg``, ``key.cls``, ``key.json``."""

import json
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path, PurePosixPath

from multistage_diffusion.data.decoding import is_image
from multistage_diffusion.data.labels import of_subfolders
from multistage_diffusion.data.sources.archives import from_bytes
from multistage_diffusion.data.sources.listing import Entry, Label, Listing, stamps
from multistage_diffusion.data.sources.tars import tar_files, tar_names
from multistage_diffusion.errors import BadInput

__all__ = ["holds_samples", "list_shards"]

LABEL_KEYS = ("label", "cls")  # of the JSON of a sample


def holds_samples(names: Sequence[str]) -> bool:
    """Whether the files of a tar are WebDataset samples: ``.cls`` files stand beside images of the same key.

    So do ``.json`` files, but in a tar whose subfolders are labels they may be anything.
    """
    images = [name for name in names if is_image(name)]
    keys = {_key(name) for name in images}
    marks = (".cls",) if any(of_subfolders(images)) else (".cls", ".json")
    return any(_key(name) in keys for name in names if name.endswith(marks))


def list_shards(paths: Sequence[Path], source: str, label_key: str | None) -> Listing:
    """The images of shards, in their order, read from beginning to end.

    Args:
        paths: the shards.
        source: what they are called together.
        label_key: key of a sample's JSON that holds its label; without it its ``.cls``, else ``label`` or ``cls`` of its JSON.
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
    """Whether a file is the image of a sample, and not one beside it such as ``key.mask.png``."""
    return is_image(name) and f"{_key(name)}{PurePosixPath(name).suffix}" == name


def _entries(path: Path, label_key: str | None) -> Iterator[Entry]:
    for key, files in groupby(tar_files(path), lambda file: _key(file[0])):
        sample = dict(files)
        images = [name for name in sample if _is_sample(name)]
        if len(images) > 1:
            raise BadInput(
                f"{path}/{key} has several images: {', '.join(images)}; a sample needs one."
            )
        for name in images:
            fields = {file.removeprefix(f"{key}."): content for file, content in sample.items()}
            label = _label(fields, label_key, f"{path}/{key}")
            yield Entry(name, f"{path}/{name}", partial(from_bytes, sample[name]), label)


def _label(fields: dict[str, bytes], label_key: str | None, where: str) -> Label:
    if "cls" in fields and label_key is None:
        text = fields["cls"].decode("utf-8", "replace").strip()
        return int(text) if text.removeprefix("-").isdecimal() else text or None
    about = _json(fields["json"], where) if "json" in fields else {}
    keys = LABEL_KEYS if label_key is None else (label_key,)
    found = next((about[key] for key in keys if key in about), None)
    if label_key is not None and not isinstance(found, int | str):
        raise BadInput(
            f"{where}.json has no whole number or name under {label_key!r}; its keys are "
            f"{list(about)}."
        )
    return found if isinstance(found, int | str) else None


def _json(content: bytes, where: str) -> dict[str, object]:
    try:
        about = json.loads(content)
    except ValueError as error:
        raise BadInput(f"{where}.json is not valid JSON: {error}.") from error
    return about if isinstance(about, dict) else {}
