"""Decoded images kept in files, so that they are decoded once and need not fit into memory.

A data set has a folder, whose name holds a hash of what identifies the source and of the options
that decide about its pixels. In it are

- shards, ``00000.npy`` and so on, uint8 ``[n, C, H, W]``;
- ``shards.json``, which records which are complete, so that an interrupted build continues;
- for each way to label the images, a file with the labels and all else, which is written last.

One process builds, others wait for it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import filelock
import torch
from torch import Tensor

from multistage_diffusion.config import read_config, to_json
from multistage_diffusion.data.assemble import (
    Progress,
    ReadingState,
    SourceReader,
    Stack,
    first_size,
)
from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.label_files import read_labels
from multistage_diffusion.data.mapped import MappedFile, MappedRows, npy_header
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.left_out import left_out_notes
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import cache_folder, fingerprint, write_atomically

__all__ = ["Cache"]

VERSION = 2  # of the files and of how images are decoded
IN_MEMORY = 1 << 30  # bytes of a decoded set that need no cache
SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class _Shard:
    """A file of images as it was when it was written."""

    bytes: int
    modified: int
    """Nanoseconds."""
    fingerprint: str


@dataclass
class _Shards:
    """The content of ``shards.json``."""

    found: ReadingState = field(default_factory=ReadingState)
    shards: list[_Shard] = field(default_factory=list)


@dataclass(frozen=True)
class _Index:
    """Everything about a data set except its pixels."""

    classes: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    standard_deviation: float
    labels: list[int] | None
    order: list[int] | None
    class_numbers: tuple[int, ...] = ()


class Cache:
    """The folder where the decoded images of a source are kept, or would be.

    Args:
        listing: the source.
        options: how to read it.
    """

    def __init__(self, listing: Listing, options: ReadOptions) -> None:
        self.listing = listing
        self.options = options
        self.identity = listing.identity()
        key = [VERSION, self.identity, options.height_and_width, options.of_pixels]
        name = re.sub(r"\W+", "-", Path(listing.source).stem).strip("-")
        self.folder = (options.cache or cache_folder()) / f"{name}-{_hash(key)}"

    @cached_property
    def index(self) -> Path:
        """The file with everything except the pixels."""
        options = self.options
        given = options.labels and sorted(read_labels(options.labels, options.label_column).items())
        return self.folder / f"index-{_hash([given, options.label_column])}.json"

    def wanted(self) -> bool:
        """Whether to keep the images in files: on request, if that was begun, or if large."""
        if self.options.cache is not None or (self.folder / "shards.json").exists():
            return True
        return self.listing.count() * first_size(self.listing, self.options) > IN_MEMORY

    def load(self, progress: Progress) -> Images:
        """The images, decoded first if they are not in the cache.

        Args:
            progress: as for ``load`` of a data set.

        Raises:
            BadInput: as ``assemble``, and if a file of the cache is damaged.
        """
        if not self.index.exists():
            with self._locked():
                if not self.index.exists():
                    self._build(progress)
        state = read_config(_Shards, self.folder / "shards.json")
        index = read_config(_Index, self.index)
        state.found.check(self.listing.source, self.options.skip_broken)
        return self._images(state, index)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder / "lock"):
            yield

    def _build(self, progress: Progress) -> None:
        for half_written in self.folder.glob(".*"):
            half_written.unlink()
        path = self.folder / "shards.json"
        state = read_config(_Shards, path) if path.exists() else _Shards()
        reading = SourceReader(self.listing, self.options, state.found)
        with ThreadPoolExecutor(1) as thread:
            writer = _Writer(self.folder, state, thread)
            for pixels in reading.images(progress):
                writer.add(pixels)
            writer.finish()
        if self.listing.identity() != self.identity:
            raise BadInput(
                f"{self.listing.source} changed while it was decoded; "
                f"repeat the command, and remove {self.folder}."
            )
        images = reading.finished(lambda: self._pixels(state))
        _write(self.index, _indexed(images, len(self._source_notes())))

    def _source_notes(self) -> tuple[str, ...]:
        """What there is to say about the source itself, which may have changed since."""
        return (*self.listing.notes, *left_out_notes(self.listing.left_out))

    def _pixels(self, state: _Shards) -> MappedRows:
        files = [self.folder / f"{number:05d}.npy" for number in range(len(state.shards))]
        for file, shard in zip(files, state.shards, strict=True):
            self._check(file, shard)
        return MappedRows([MappedFile(file, channels_first=True) for file in files])

    def _check(self, file: Path, shard: _Shard) -> None:
        """Raises BadInput if a shard is not what was written."""
        if not _is_intact(file, shard):
            raise BadInput(
                f"{file} is missing or not as it was written; "
                f"remove {self.folder} to decode {self.listing.source} again."
            )

    def _images(self, state: _Shards, index: _Index) -> Images:
        pixels = self._pixels(state)
        if index.order is not None:
            pixels = pixels.at(torch.tensor(index.order))
        images = Images(
            pixels,
            None if index.labels is None else torch.tensor(index.labels),
            index.classes,
            self.listing.source,
            (*self._source_notes(), *index.notes),
            tuple(state.found.broken.values()),
            self.listing,
            class_numbers=index.class_numbers,
            left_out=self.listing.left_out,
            resized=state.found.changes.resized,
        )
        # These cached properties would read all images
        vars(images)["fingerprint"] = index.fingerprint
        vars(images)["standard_deviation"] = index.standard_deviation
        return images


def _is_intact(file: Path, shard: _Shard) -> bool:
    """Whether a shard is what was written; only one with another time, a copy, is hashed."""
    if not file.exists():
        return False
    state = file.stat()
    if state.st_size != shard.bytes:
        return False
    return state.st_mtime_ns == shard.modified or fingerprint(file) == shard.fingerprint


def _indexed(images: Images, source_notes: int) -> _Index:
    assert isinstance(images.pixels, MappedRows)
    return _Index(
        images.classes,
        images.notes[source_notes:],
        images.fingerprint,
        images.standard_deviation,
        _as_list(images.labels),
        _as_list(images.pixels.order),
        images.class_numbers,
    )


def _as_list(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else tensor.tolist()


class _Writer:
    """Writes images as shards, in a thread.

    Each shard is completely on the disk before ``shards.json`` counts it.
    """

    def __init__(self, folder: Path, state: _Shards, thread: ThreadPoolExecutor) -> None:
        self.folder = folder
        self.state = state
        self.thread = thread
        self.stack = Stack()
        self.writing = Future[None]()
        self.writing.set_result(None)

    def add(self, pixels: Pixels) -> None:
        if self.stack.count == 0:
            self.stack = Stack(max(1, SHARD_BYTES // pixels.size))
        self.stack.add(pixels)
        if self.stack.count == len(self.stack.rows):
            self.flush()

    def flush(self) -> None:
        """Begins to write the images of the stack, once the shard before is written."""
        self.writing.result()
        found = deepcopy(self.state.found)
        self.writing = self.thread.submit(self._write, self.stack.pixels(), found)
        self.stack = Stack()

    def finish(self) -> None:
        """Writes the rest, and waits until all is written."""
        self.flush()
        self.writing.result()

    def _write(self, rows: Pixels, found: ReadingState) -> None:
        file = self.folder / f"{len(self.state.shards):05d}.npy"
        if len(rows):
            write_atomically(file, npy_header(rows), rows.data.cast("B"))
            self.state.shards.append(_shard(file))
        _write(self.folder / "shards.json", _Shards(found, self.state.shards))


def _shard(file: Path) -> _Shard:
    state = file.stat()
    return _Shard(state.st_size, state.st_mtime_ns, fingerprint(file))


def _write(path: Path, value: object) -> None:
    write_atomically(path, json.dumps(to_json(value)).encode())


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
