"""Decoded images kept in files, so that they are decoded once and need not fit into memory.

A data set has a folder, whose name holds a hash of what identifies the source and of what decides about its pixels. In it are
shards, ``00000.npy`` and so on, uint8 ``[n, C, H, W]``; ``shards.json``, which says how far they have come, so that an
interrupted build goes on; and for each way to label the images a file with the labels and all else, which is written last. One
process builds, others wait for it.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import filelock
import numpy as np
import torch

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.data.assembling import Found, Reading, Stack, Watch, first_size
from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.labels import read_labels
from multistage_diffusion.data.mapped import MappedFile, MappedRows
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import fingerprint, read_json, write_atomically

__all__ = ["Cache"]

VERSION = 1  # of the files and of how images are decoded
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
    """``shards.json``."""

    found: Found = field(default_factory=Found)
    shards: list[_Shard] = field(default_factory=list)


@dataclass(frozen=True)
class _Index:
    """All but the pixels."""

    classes: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    standard_deviation: float
    labels: list[int] | None
    order: list[int] | None


class Cache:
    """Where the decoded images of a source are kept, or would be.

    Args:
        listing: the source.
        options: how to read it.
    """

    def __init__(self, listing: Listing, options: ReadOptions) -> None:
        self.listing, self.options, self.identity = listing, options, listing.identity()
        pixels = [VERSION, self.identity, options.height_and_width, options.fit, options.split]
        name = re.sub(r"\W+", "-", Path(listing.source).stem).strip("-")
        self.folder = (options.cache or _default_folder()) / f"{name}-{_hash(pixels)}"

    @cached_property
    def index(self) -> Path:
        """The file with all but the pixels."""
        given = self.options.labels and sorted(read_labels(self.options.labels).items())
        return self.folder / f"index-{_hash([given, self.options.label_column])}.json"

    def wanted(self) -> bool:
        """Whether the images are to be kept in files: if that was asked for, was begun, or they are large."""
        if self.options.cache is not None or (self.folder / "shards.json").exists():
            return True
        return self.listing.count() * first_size(self.listing, self.options) > IN_MEMORY

    def load(self, watch: Watch) -> Images:
        """The images, decoded first if need be.

        Raises:
            BadInput: as ``assemble``, and if a file of the cache is damaged.
        """
        if not self.index.exists():
            with self._locked():
                if not self.index.exists():
                    self._build(watch)
        state, index = (
            from_json(_Shards, read_json(self.folder / "shards.json")),
            from_json(_Index, read_json(self.index)),
        )
        state.found.check(self.listing.source, self.options.skip_broken)
        return self._images(state, index)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.folder / "lock"):
            yield

    def _build(self, watch: Watch) -> None:
        for half_written in self.folder.glob(".*"):
            half_written.unlink()
        path = self.folder / "shards.json"
        state = from_json(_Shards, read_json(path)) if path.exists() else _Shards()
        reading = Reading(self.listing, self.options, state.found)
        with ThreadPoolExecutor(1) as thread:
            writer = _Writer(self.folder, state, thread)
            for pixels in reading.images(watch):
                writer.add(pixels)
            writer.finish()
        if self.listing.identity() != self.identity:
            raise BadInput(
                f"{self.listing.source} changed while it was decoded; repeat the command, and "
                f"remove {self.folder}."
            )
        images = reading.finished(lambda: self._pixels(state))
        _write(self.index, _indexed(images))

    def _pixels(self, state: _Shards) -> MappedRows:
        files = [self.folder / f"{number:05d}.npy" for number in range(len(state.shards))]
        for file, shard in zip(files, state.shards, strict=True):
            self._check(file, shard)
        return MappedRows([MappedFile(file, channels_first=True) for file in files])

    def _check(self, file: Path, shard: _Shard) -> None:
        """Raises an error if a shard is not what was written; one that was copied is hashed."""
        found = file.stat() if file.exists() else None
        if (
            found
            and found.st_size == shard.bytes
            and (found.st_mtime_ns == shard.modified or fingerprint(file) == shard.fingerprint)
        ):
            return
        raise BadInput(
            f"{file} is missing or not as it was written; remove {self.folder} to decode "
            f"{self.listing.source} again."
        )

    def _images(self, state: _Shards, index: _Index) -> Images:
        pixels = self._pixels(state)
        images = Images(
            pixels if index.order is None else pixels.at(torch.tensor(index.order)),
            None if index.labels is None else torch.tensor(index.labels),
            index.classes,
            self.listing.source,
            index.notes,
            tuple(state.found.broken.values()),
        )
        vars(images).update(
            fingerprint=index.fingerprint, standard_deviation=index.standard_deviation
        )  # need not be found again
        return images


def _indexed(images: Images) -> _Index:
    assert isinstance(images.pixels, MappedRows)
    labels, order = (
        None if tensor is None else tensor.tolist()
        for tensor in (images.labels, images.pixels.order)
    )
    return _Index(
        images.classes, images.notes, images.fingerprint, images.standard_deviation, labels, order
    )


class _Writer:
    """Images as shards, written in a thread. Each is whole on the disk before ``shards.json`` counts it."""

    def __init__(self, folder: Path, state: _Shards, thread: ThreadPoolExecutor) -> None:
        self.folder, self.state, self.thread = folder, state, thread
        self.stack, self.writing = Stack(), Future[None]()
        self.writing.set_result(None)

    def add(self, pixels: Pixels) -> None:
        if self.stack.count == 0:
            self.stack = Stack(max(1, SHARD_BYTES // pixels.size))
        self.stack.add(pixels)
        if self.stack.count == len(self.stack.rows):
            self.flush()

    def flush(self) -> None:
        """Begins to write what there is, once what came before is written."""
        self.writing.result()
        self.writing = self.thread.submit(
            self._write, self.stack.pixels(), deepcopy(self.state.found)
        )
        self.stack = Stack()

    def finish(self) -> None:
        """Writes what there is."""
        self.flush()
        self.writing.result()

    def _write(self, rows: Pixels, found: Found) -> None:
        file = self.folder / f"{len(self.state.shards):05d}.npy"
        if len(rows):
            write_atomically(file, _header(rows), rows.data.cast("B"))
            written = file.stat()
            self.state.shards.append(
                _Shard(written.st_size, written.st_mtime_ns, fingerprint(file))
            )
        _write(self.folder / "shards.json", _Shards(found, self.state.shards))


def _header(rows: Pixels) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(rows))
    return header.getvalue()


def _write(path: Path, value: object) -> None:
    write_atomically(path, json.dumps(to_json(value)).encode())


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _default_folder() -> Path:
    """The user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multistage-diffusion"
