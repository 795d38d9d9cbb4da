"""Several processes that share one computation, through torch.distributed.

With one process all this changes nothing.

The processes are started by ``torchrun`` or ``accelerate launch``, which tell each its number in
the environment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_reduce_max",
    "all_reduce_sum",
    "barrier",
    "broadcast",
    "float64_device",
    "init_process_group",
    "is_main_process",
    "process_group",
    "rank",
    "world_size",
]

Value = TypeVar("Value")


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this is the process that speaks and writes; known before the processes have
    joined.
    """
    return rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


def barrier() -> None:
    """Waits until all processes are here."""
    broadcast(None)


def float64_device() -> torch.device:
    """The GPU of this process, or the processor if there is none that computes in float64."""
    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def init_process_group(device: torch.device) -> None:
    """Joins the other processes, if this one was started as one of several and they have not joined
    yet.

    When torch's launcher starts the processes of one machine again, its store still holds the
    addresses of the dead ones; each attempt therefore has a part of the store to itself. (Between
    machines attempts are not numbered alike, and stores are new.)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_machine else "0"
    own = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=own, rank=number, world_size=size
    )


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the other processes, unless they have joined, and leaves them at the end."""
    if dist.is_initialized():
        yield
        return
    init_process_group(device)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def all_reduce_max(value: Tensor) -> Tensor:
    """The elementwise maximum over the processes."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def all_reduce_sum(value: Tensor) -> Tensor:
    """The elementwise sum over the processes."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.SUM)
    return value


def broadcast(value: Value) -> Value:
    """The first process's value, in every process."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]
