"""Where images come from: which reader a name belongs to.

Whatever a person may have to mend in the data raises ``BadInput`` with the name of the file at fault.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from multistage_diffusion.data.assembling import Watch, assemble
from multistage_diffusion.data.cache import Cache
from multistage_diffusion.data.decoding import is_image
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.archives import list_folder, list_tar, list_zip
from multistage_diffusion.data.sources.arrays import load_digits, load_npy, load_npz, resized
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.shards import holds_samples, list_shards
from multistage_diffusion.data.sources.tables import (
    holds_shards,
    list_hub,
    list_parquet,
    list_saved,
    list_shard_folder,
    may_be_hub_id,
)
from multistage_diffusion.data.sources.tars import tar_names
from multistage_diffusion.errors import BadInput

__all__ = ["expand", "list_images", "load"]

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
KINDS = "a folder of images, a .zip, .tar, .npz, .npy, .parquet or .arrow file"
READ = (".zip", *TARS, ".npz", ".npy", ".parquet", ".arrow")
DEFAULT = ReadOptions()


def load(
    source: Path | str, options: ReadOptions = DEFAULT, watch: Watch = lambda images, *_: images
) -> Images:
    """Reads and decodes a whole data set, or takes it from the cache of decoded images, where large ones are kept.

    Args:
        source: ``digits`` for the 1,797 handwritten digits of scikit-learn (8x8, grey); a folder of images, or a ``.zip`` or
            ``.tar`` archive of one, whose subfolders, if it has any, are the labels (or its ``dataset.json``, as EDM's tools
            write it); WebDataset shards as a pattern such as ``shards/{000..004}.tar`` or ``shards/*.tar``; a ``.npz`` file with
            ``images`` ``[N, H, W]`` or ``[N, H, W, C]`` in uint8 and, if wanted, ``labels`` ``[N]``; a ``.npy`` file with such
            images, or with latents as floating point ``[N, C, H, W]``, which is read in parts and may be larger than memory; a
            ``.parquet`` file with a Hugging Face image column, a folder of such files, or what ``save_to_disk`` wrote; or the
            name of a data set on the Hugging Face hub.
        options: size, labels and what to do about broken images.
        watch: passes decoded images through and shows how far they have come.

    Raises:
        BadInput: if there is nothing there, a file cannot be read, or sizes differ and none is asked for.
    """
    found = list_images(source, options)
    if isinstance(found, Images):
        return resized(found, options)
    cache = Cache(found, options)
    return cache.load(watch) if cache.wanted() else assemble(found, options, watch)


def list_images(source: Path | str, options: ReadOptions = DEFAULT) -> Listing | Images:
    """The images of a source before they are decoded; those that are arrays already as they are.

    Raises:
        BadInput: as ``load``, for what shows before images are decoded.
    """
    path = Path(source)
    if str(source) == "digits":
        return _without_labels(load_digits(), options)
    if path.is_dir():
        return _folder(path, options)
    if path.exists():
        return _file(path, options)
    if re.search(r"[*?\[{]", str(source)):
        return _pattern(str(source), options)
    if may_be_hub_id(str(source)) and not path.name.endswith(READ):
        return list_hub(str(source), options)
    raise BadInput(f"There is no folder or file {path} to read images from.")


def _folder(path: Path, options: ReadOptions) -> Listing:
    table = holds_shards(path) and not any(
        is_image(p.relative_to(path).as_posix()) for p in path.rglob("*")
    )
    return (
        list_shard_folder(path, options) if table else _without_columns(list_folder(path), options)
    )


def _file(path: Path, options: ReadOptions) -> Listing | Images:
    if path.suffix == ".npz":
        return _without_labels(load_npz(path), options)
    if path.suffix == ".npy":
        return _without_labels(load_npy(path), options)
    if path.suffix == ".parquet":
        return list_parquet([path], str(path), _without_split(options, str(path)))
    if path.suffix == ".arrow":
        return list_saved(path, _without_split(options, str(path)))
    if path.suffix == ".zip":
        return _without_columns(list_zip(path), options)
    if path.name.endswith(TARS):
        samples = holds_samples(tar_names(path))
        return (
            _shards([path], str(path), options)
            if samples
            else _without_columns(list_tar(path), options)
        )
    raise BadInput(f"{path} is not a data set this program reads: give {KINDS}.")


def _pattern(source: str, options: ReadOptions) -> Listing:
    """Several files of one kind."""
    paths = [path for pattern in expand(source) for path in _matching(Path(pattern))]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise BadInput(f"There is no file {missing[0]}, of {len(paths)} that {source} stands for.")
    if all(path.name.endswith(TARS) for path in paths):
        return _shards(paths, source, options)
    if all(path.suffix == ".parquet" for path in paths):
        return list_parquet(paths, source, _without_split(options, source))
    raise BadInput(
        f"{source} stands for {paths[0]} and others; a pattern may stand for .tar files or for "
        ".parquet files."
    )


def _matching(pattern: Path) -> list[Path]:
    """The paths that ``*``, ``?`` and ``[]`` stand for, in order; the pattern itself if there is none."""
    root = Path(pattern.anchor)
    return sorted(root.glob(str(pattern.relative_to(root)))) or [pattern]


def _shards(paths: Sequence[Path], source: str, options: ReadOptions) -> Listing:
    return list_shards(paths, source, _without_split(options, source).label_column)


def expand(pattern: str) -> list[str]:
    """What braces stand for: ``{000..004}`` for numbers, ``{a,b}`` for texts."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    texts = found[1].split(",")
    if numbers:
        first, last = numbers[1], numbers[2]
        texts = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [
        rest
        for text in texts
        for rest in expand(pattern[: found.start()] + text + pattern[found.end() :])
    ]


def _without_labels(images: Images, options: ReadOptions) -> Images:
    """Refuses what an array has not: names and columns."""
    if options.labels is not None:
        raise BadInput(f"--labels names files, and {images.source} has none; leave it out.")
    _refuse_columns(images.source, options)
    return images


def _without_columns(listing: Listing, options: ReadOptions) -> Listing:
    _refuse_columns(listing.source, options)
    return listing


def _refuse_columns(source: str, options: ReadOptions) -> None:
    if options.label_column is not None:
        raise BadInput(
            f"--label-column is for tables and WebDataset shards, and {source} is none; use "
            "--labels FILE."
        )
    _without_split(options, source)


def _without_split(options: ReadOptions, source: str) -> ReadOptions:
    if options.split is not None:
        raise BadInput(
            f"--split is for Hugging Face data sets, and {source} has no parts; leave it out."
        )
    return options
