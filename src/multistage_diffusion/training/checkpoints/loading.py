"""Reading the checkpoints of a run."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_metadata, read_tensors
from multistage_diffusion.training.checkpoints.content import (
    MODEL,
    SHARDS,
    TRAINING,
    all_tensors,
    is_small,
)
from multistage_diffusion.training.distributed.sharding import is_sharded
from multistage_diffusion.training.distributed.shards import check_shard, load_shards
from multistage_diffusion.training.ledger import Ledger
from multistage_diffusion.training.optimization import moment_names
from multistage_diffusion.training.state import State

__all__ = ["load_latest"]

log = logging.getLogger(__name__)


def load_latest(run: Run, state: State) -> None:
    """Puts the latest checkpoint of a run, if there is one, into an initial state, on every rank.

    A damaged checkpoint is renamed with a warning, and the one before is loaded.

    Raises:
        BadInput: if all are damaged, or one does not fit.
    """
    checkpoints = run.checkpoints()
    main = distributed.is_main_process()
    found, problem = distributed.broadcast(_readable(checkpoints) if main else (None, None))
    if found is None and problem is not None:
        raise BadInput(problem)
    if found is None:
        return
    load_checkpoint(found, state)
    if main:
        _rename_damaged([path for path in checkpoints if path > found])


def _readable(checkpoints: Sequence[Path]) -> tuple[Path | None, str | None]:
    """The latest checkpoint that can be read, and what is wrong with the latest one."""
    problem = None
    for checkpoint in reversed(checkpoints):
        try:
            _check_files(checkpoint)
        except BadInput as error:
            problem = problem or str(error)
        else:
            return checkpoint, problem
    return None, problem


def _check_files(checkpoint: Path) -> None:
    """Raises BadInput if a file of a checkpoint is missing or truncated."""
    progress = read_metadata(checkpoint / TRAINING)
    read_metadata(checkpoint / MODEL)
    for name in _shards(progress):
        check_shard(checkpoint / name)


def _shards(progress: Mapping[str, object]) -> list[str]:
    """The names of the ranks' files; none if the tensors are not sharded."""
    names = progress.get(SHARDS, [])
    return list(map(str, names)) if isinstance(names, list) else []


def _rename_damaged(checkpoints: Sequence[Path]) -> None:
    for damaged in checkpoints:
        damaged.replace(_free_name(damaged))
        log.warning(
            "%s is damaged and was renamed; the run continues from the checkpoint before", damaged
        )


def _free_name(damaged: Path) -> Path:
    """What to rename a damaged checkpoint to: a name that no earlier one has."""
    first = damaged.with_name(f"{damaged.name}.damaged")
    others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    names = itertools.chain([first], others)
    return next(name for name in names if not name.exists())


def load_checkpoint(checkpoint: Path, state: State) -> None:
    """Puts the values of a checkpoint into an initial state.

    Raises:
        BadInput: if a file of the checkpoint is damaged or does not fit.
    """
    small, progress = read_tensors(checkpoint / TRAINING, is_small)
    sharded = is_sharded(state.denoiser.network) or SHARDS in progress
    load = load_shards if sharded else _load_whole
    try:
        _make_moments(state, small)
        load(checkpoint, {name: t for name, t in all_tensors(state) if not is_small(name)})
        _load_progress(state, small, progress)
    except (RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"The checkpoint {checkpoint} does not fit this run: {error}.") from error
    if not distributed.is_main_process():  # rank 0 holds the sums of all ranks
        state.sums.loss.zero_()
        state.sums.count.zero_()
        state.ledger.processor_seconds = 0.0


def _make_moments(state: State, steps: Mapping[str, Tensor]) -> None:
    """Gives the optimizer moments to be filled, where it had some."""
    for name, parameter in state.named_parameters():
        if f"step.{name}" not in steps:  # a decoder without a sample so far has no moments
            continue
        names = moment_names(state.optimizer, parameter)
        moments = {moment: torch.empty_like(parameter).detach() for moment in names}
        step = steps[f"step.{name}"].to(parameter.device)
        state.optimizer.state[parameter] = {**moments, "step": step}


def _load_whole(checkpoint: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fills tensors from a checkpoint that is not sharded.

    Raises:
        KeyError: if one is missing.
        ValueError: if one has another shape.
    """
    values = {**read_tensors(checkpoint / TRAINING)[0], **read_tensors(checkpoint / MODEL)[0]}
    for name, tensor in tensors.items():
        if tensor.shape != values[name].shape:
            raise ValueError(f"{name} is {list(values[name].shape)} there")
        tensor.copy_(values[name])


def _load_progress(
    state: State, tensors: Mapping[str, Tensor], progress: Mapping[str, object]
) -> None:
    for name, value in vars(state.sums).items():
        stored = tensors[f"sum.{name}"]
        if len(stored) == len(value):  # earlier versions summed some losses by fewer stages
            value.copy_(stored)
    state.images = int(str(progress["images"]))
    state.ledger = Ledger.from_progress(
        {name: float(str(value)) for name, value in progress.items() if name != SHARDS}
    )
    # The first checkpoints ever written had one count for all parts.
    state.averages.seen.copy_(tensors.get("seen", torch.tensor(state.images)))
