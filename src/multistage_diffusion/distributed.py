"""Several processes that share a computation, through torch.distributed.

They are started by ``torchrun`` or ``accelerate launch``, which give each its rank in the
environment. In a single process every function here changes nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = [
    "Work",
    "all_reduce_max",
    "all_reduce_sum",
    "any_rank",
    "background_group",
    "barrier",
    "begin_all_reduce_sum",
    "broadcast",
    "default_device",
    "float64_device",
    "init_process_group",
    "is_main_process",
    "process_group",
    "rank",
    "world_size",
]

Value = TypeVar("Value")


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this is rank 0, which prints and writes; known before the process group exists."""
    if dist.is_initialized():
        return rank() == 0
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return alone or os.environ.get("RANK", "0") == "0"


def barrier() -> None:
    """Waits until all ranks are here."""
    if world_size() == 1:
        return
    on_gpu = dist.get_backend() == "nccl"
    dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)


def default_device() -> torch.device:
    """The accelerator that torch finds, or the CPU if there is none."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def float64_device() -> torch.device:
    """The GPU of this process, or the CPU if there is none that computes in float64."""
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if on_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def init_process_group(device: torch.device) -> None:
    """Joins the process group, if this process is one of several and has not joined yet.

    When torch's launcher restarts the processes of one machine, its store still holds the addresses
    of the dead ones; each attempt therefore has its own part of the store. (Between machines
    attempts are not numbered alike, and stores are new.)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, own_rank, size = _rendezvous()
    own_part = dist.PrefixStore(f"attempt-{_attempt()}", store)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=own_part, rank=own_rank, world_size=size)


def _rendezvous() -> tuple[Any, int, int]:
    """The store of all processes, the rank of this one, and their number.

    Raises:
        BadInput: if the first process cannot be found.
    """
    try:
        store, own_rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    except (ValueError, dist.DistError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise BadInput(
            f"Rank 0 was not found at {address} ({error}): check MASTER_ADDR and MASTER_PORT, or "
            "start the processes with torchrun."
        ) from error
    return store, own_rank, size


def _attempt() -> str:
    """The number of the launcher's restarts, where it is the same on all ranks."""
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine else "0"


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the process group, unless this process has joined, and leaves it at the end."""
    if dist.is_initialized():
        yield
        return
    init_process_group(device)
    try:
        yield
    finally:
        _host_group.cache_clear()  # a group that lives longer may abort the process at its exit
        _second_host_group.cache_clear()
        if dist.is_initialized():
            dist.destroy_process_group()


def all_reduce_max(value: Tensor) -> Tensor:
    """The elementwise maximum over the ranks."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def all_reduce_sum(value: Tensor) -> Tensor:
    """The elementwise sum over the ranks."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.SUM)
    return value


class Work(Protocol):
    """A computation of several ranks that has begun."""

    def wait(self) -> object:
        """Waits for its result; on a GPU, lets the current stream wait."""


def begin_all_reduce_sum(value: Tensor) -> Work:
    """Begins to replace a tensor by its sum over the ranks, in place."""
    work: Work = dist.all_reduce(value, dist.ReduceOp.SUM, async_op=True)
    return work


def any_rank(condition: bool) -> bool:
    """Whether a condition holds on any rank. It waits for the ranks but not for their devices."""
    if world_size() == 1:
        return condition
    value = torch.tensor(float(condition))
    dist.all_reduce(value, dist.ReduceOp.MAX, group=_host_group(dist.group.WORLD))
    return bool(value)


@lru_cache(maxsize=1)
def _host_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """A group of all ranks that exchanges what is in the memory of the hosts."""
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")


def background_group() -> dist.ProcessGroup | None:
    """A group of all ranks for work beside training, whose messages must not mix with its own.

    It exchanges what is in the memory of the hosts. None in a single process. All ranks call it.
    """
    return _second_host_group(dist.group.WORLD) if dist.is_initialized() else None


@lru_cache(maxsize=1)
def _second_host_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    return dist.new_group(dist.get_process_group_ranks(world), backend="gloo")


def broadcast(value: Value) -> Value:
    """The value of rank 0, on every rank."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
