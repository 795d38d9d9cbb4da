"""Files of which each rank writes its own, through torch.distributed.checkpoint.

A rank writes the rows that it holds of sharded tensors to safetensors files, whose metadata say
which rows these are. ``load_shards`` takes from all safetensors files of a folder what its rank
needs, so that neither the number of ranks nor how tensors are sharded has to be the same.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from multistage_diffusion import distributed
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import file_atomically
from multistage_diffusion.tensorfile import header_bytes, open_tensors, text_metadata

__all__ = [
    "begin_to_save",
    "check_shard",
    "check_support",
    "join_shards",
    "load_shards",
    "saved",
    "shard_files",
]

FORM = "pt"
ROWS = "DCP_SHARDING_INFO"
UNUSED = "torch.distributed is disabled"  # what torch warns of where a single process loads


def begin_to_save(folder: Path, *files: Mapping[str, Tensor]) -> Future[object]:
    """Begins to write tensors to a folder. All ranks call it; tensors may change when it returns.

    Args:
        folder: an empty folder, or none yet, which all ranks see.
        files: the tensors of the first file of every rank, of the second, and so on.
    """
    numbers = {name: 1 + index for index, names in enumerate(files) for name in names}
    writer = _storage("Writer")(str(folder), fqn_to_index_mapping=numbers, save_distributed=True)
    tensors = {name: tensor for file in files for name, tensor in file.items()}
    group = distributed.background_group()
    future = async_save(tensors, storage_writer=writer, process_group=group)
    return cast("Future[object]", future)


def saved(future: Future[object], folder: Path) -> None:
    """Waits until all ranks have written their files to a folder.

    Raises:
        OSError: if one could not.
    """
    try:
        future.result()
    except CheckpointException as error:
        failure = _first_failure(error)
        if isinstance(failure, OSError):  # a full disk does not say which file it was
            raise OSError(failure.errno, failure.strerror, str(folder)) from error
        raise failure from error


def _first_failure(error: CheckpointException) -> BaseException:
    return next(iter(error.failures.values()))[0]


def shard_files(folder: Path, number: int, of: int) -> list[Path]:
    """The files of all ranks of a number, 1 to ``of``, in a folder that they have just written.

    They are looked for by name: on a network file system a listing may be older than they are.
    """
    ranks = range(1, distributed.world_size() + 1)
    names = (f"shard-{rank:05d}-model-{number:05d}-of-{of:05d}.safetensors" for rank in ranks)
    return [folder / name for name in names if (folder / name).exists()]


def check_shard(path: Path) -> None:
    """Raises BadInput if a rank's file is missing or truncated."""
    with open_tensors(path, FORM):
        pass


def load_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fills tensors, whole ones or sharded ones, from the files of a folder. All ranks call it.

    Raises:
        ValueError: if a tensor is missing or has another shape.
        BadInput: if torch is too old.
    """
    check_support()
    reader = _storage("Reader")(str(folder))
    group = distributed.background_group()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", UNUSED)
            load(dict(tensors), storage_reader=reader, process_group=group)
    except CheckpointException as error:
        raise ValueError(_first_failure(error)) from error


def check_support() -> None:
    """Raises BadInput if torch is too old to write its distributed checkpoints as safetensors."""
    try:
        supported = "save_distributed" in signature(_storage("Writer")).parameters
    except ImportError:
        supported = False
    if not supported:
        raise BadInput(
            f"Checkpoints of sharded weights need a newer torch than {torch.__version__}; 2.13 is "
            "known to do. Install it, or train without --shard."
        )


def _storage(kind: str) -> Any:
    """The class that writes or reads safetensors files."""
    module = import_module("torch.distributed.checkpoint.hf_storage")
    return getattr(module, f"HuggingFaceStorage{kind}")


def join_shards(path: Path, shards: Sequence[Path], metadata: Mapping[str, object]) -> None:
    """Joins ranks' files to one, as ``save_tensors`` would have written it, atomically.

    One tensor's rows of one rank are held in memory at a time.
    """
    pieces = _pieces(shards)
    with ExitStack() as stack, file_atomically(path) as file:
        handles = {shard: stack.enter_context(safe_open(shard, FORM)) for shard in shards}
        found = {name: [handles[shard] for shard in holders] for name, holders in pieces.items()}
        file.write(_joined_header(found, metadata))
        for name in sorted(found):
            for handle in found[name]:
                file.write(_data(handle.get_tensor(name)))


def _pieces(shards: Iterable[Path]) -> dict[str, list[Path]]:
    """Which files hold rows of a tensor, in the order of these rows."""
    offsets: dict[str, list[tuple[Sequence[int], Path]]] = {}
    for shard in shards:
        with open_tensors(shard, FORM) as (_, metadata):
            for name, info in cast("dict[str, Any]", metadata[ROWS]).items():
                offsets.setdefault(name, []).append((info["saved_offsets"], shard))
    return {name: [shard for _, shard in sorted(found)] for name, found in offsets.items()}


def _joined_header(found: Mapping[str, Sequence[Any]], metadata: Mapping[str, object]) -> bytes:
    header: dict[str, object] = {"__metadata__": text_metadata(metadata)}
    end = 0
    for name in sorted(found):
        slices = [handle.get_slice(name) for handle in found[name]]
        shapes = [part.get_shape() for part in slices]
        shape = [sum(part[0] for part in shapes), *shapes[0][1:]]
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    return header_bytes(header)


def _data(tensor: Tensor) -> bytes:
    assert tensor.dtype == torch.float32, "weights are float32"
    return tensor.numpy().tobytes()
