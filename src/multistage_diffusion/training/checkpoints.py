"""Checkpoints of a training run.

``RUN/checkpoints/<images>/`` holds ``model.safetensors`` (averaged weights, ready to sample from)
and ``training.safetensors`` (weights, moments of the optimizer, other averages, running sums). A
checkpoint is written to a temporary folder and renamed, so that one that exists is complete.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import flush_folder
from multistage_diffusion.model import save_model
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_tensors, save_tensors
from multistage_diffusion.training.config import RunConfig, provenance
from multistage_diffusion.training.distributed.sharding import placed_like, whole
from multistage_diffusion.training.ledger import Ledger
from multistage_diffusion.training.retention import superseded
from multistage_diffusion.training.state import LEARNED_WEIGHT, State

__all__ = ["load_latest", "save_checkpoint", "whole_weights"]

MODEL = "model.safetensors"
TRAINING = "training.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")

log = logging.getLogger(__name__)


def save_checkpoint(run: Run, state: State, config: RunConfig) -> None:
    """Writes a checkpoint and removes superseded ones. All ranks call it, rank 0 writes."""
    target = run.checkpoint(state.images)
    averaged = whole_weights(state.averages.main)
    training = {name: whole(tensor) for name, tensor in _tensors(state)}
    if target.exists() or not distributed.is_main_process():
        return
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        settings = provenance(config)
        save_model(temporary / MODEL, averaged, config.model, state.images, settings)
        save_tensors(temporary / TRAINING, training, _progress(state))
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(target.parent)
    for old in superseded(run.checkpoints(), config.training.retention):
        shutil.rmtree(old)


def whole_weights(denoiser: NetworkDenoiser) -> dict[str, Tensor]:
    """The weights, gathered from all ranks if they are sharded. All ranks must call it."""
    return {name: whole(tensor) for name, tensor in denoiser.network.state_dict().items()}


def _progress(state: State) -> dict[str, float]:
    return {"images": state.images, **state.ledger.as_progress()}


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``training.safetensors``."""
    network = state.denoiser.network
    yield from ((f"sum.{name}", value) for name, value in vars(state.sums).items())
    yield "seen", state.averages.seen
    yield from ((f"average.{name}", tensor) for name, tensor in state.averages.tensors())
    persistent = network.state_dict()
    buffers = network.named_buffers()
    yield from ((f"net.{name}", buffer) for name, buffer in buffers if name in persistent)
    for name, parameter in state.named_parameters():
        yield f"net.{name}", parameter
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


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
            for name in (TRAINING, MODEL):
                read_tensors(checkpoint / name)
        except BadInput as error:
            problem = problem or str(error)
        else:
            return checkpoint, problem
    return None, problem


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
    tensors, progress = read_tensors(checkpoint / TRAINING)
    averaged, _ = read_tensors(checkpoint / MODEL)
    try:
        _load_weights(state, tensors, averaged)
        _load_moments(state, tensors)
        _load_progress(state, tensors, progress)
    except (RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"The checkpoint {checkpoint} does not fit this run: {error}.") from error
    if not distributed.is_main_process():  # rank 0 holds the sums of all ranks
        state.sums.loss.zero_()
        state.sums.count.zero_()
        state.ledger.processor_seconds = 0.0


def _load_weights(
    state: State, tensors: Mapping[str, Tensor], averaged: Mapping[str, Tensor]
) -> None:
    weights = _under("net.", tensors)
    if state.learned_weight is not None:
        state.learned_weight.weight.data.copy_(weights.pop(LEARNED_WEIGHT))
    _load_network(state.denoiser.network, weights)
    _load_network(state.averages.main.network, averaged)
    for index, network in enumerate(state.averages.power):
        _load_network(network, _under(f"average.{index}.", tensors))


def _load_network(network: nn.Module, values: Mapping[str, Tensor]) -> None:
    known = network.state_dict()
    placed = {
        name: placed_like(known[name], value) if name in known else value
        for name, value in values.items()
    }
    network.load_state_dict(placed)


def _load_moments(state: State, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in state.named_parameters():
        if f"step.{name}" not in tensors:  # a decoder without a sample so far has no moments
            continue
        moments = {
            moment: placed_like(parameter, tensors[f"{moment}.{name}"]).detach()
            for moment in MOMENTS
        }
        step = tensors[f"step.{name}"].to(parameter.device)
        state.optimizer.state[parameter] = {**moments, "step": step}


def _load_progress(
    state: State, tensors: Mapping[str, Tensor], progress: Mapping[str, object]
) -> None:
    for name, value in vars(state.sums).items():
        stored = tensors[f"sum.{name}"]
        if len(stored) == len(value):  # earlier versions summed some losses by fewer stages
            value.copy_(stored)
    state.images = int(str(progress["images"]))
    state.ledger = Ledger.from_progress(
        {name: float(str(value)) for name, value in progress.items()}
    )
    # The first checkpoints ever written had one count for all parts.
    state.averages.seen.copy_(tensors.get("seen", torch.tensor(state.images)))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
