"""The state of a training run, and its checkpoints.

``RUN/checkpoints/<images>/`` holds ``model.safetensors`` (averaged weights, ready to sample from) and ``training.safetensors``
(weights, Adam's moments, other averages, running sums). A checkpoint is written to a temporary folder and renamed, so one that
exists is whole. The latest are kept, and one for each interval of images if asked for.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import flush_folder
from multistage_diffusion.model import save_model
from multistage_diffusion.tensorfile import read_tensors, save_tensors
from multistage_diffusion.training.config import RunConfig, TrainingConfig, provenance
from multistage_diffusion.training.distributed.sharding import placed_like, whole
from multistage_diffusion.training.state import LEARNED_WEIGHT, State

__all__ = [
    "MOMENTS",
    "checkpoints",
    "images_seen",
    "load_checkpoint",
    "load_latest",
    "save_checkpoint",
    "whole_weights",
]


MOMENTS = ("exp_avg", "exp_avg_sq")


log = logging.getLogger(__name__)


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(p for p in run.glob("checkpoints/*") if p.is_dir() and p.name.isdigit())


def images_seen(run: Path) -> int:
    """How far the latest checkpoint of a run is, in images; 0 without one."""
    return max((int(checkpoint.name) for checkpoint in checkpoints(run)), default=0)


def save_checkpoint(run: Path, state: State, config: RunConfig) -> None:
    """Writes a checkpoint and removes those that need not be kept. All processes call it, the first one writes."""
    target = run / "checkpoints" / f"{state.images:012d}"
    averaged, training = (
        whole_weights(state.averages.main),
        {name: whole(tensor) for name, tensor in _tensors(state)},
    )
    if target.exists() or not distributed.is_main_process():
        return
    progress = {"images": state.images, "seconds": state.seconds, "macs": state.macs}
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_model(
            temporary / "model.safetensors",
            averaged,
            config.model,
            state.images,
            provenance(config),
        )
        save_tensors(temporary / "training.safetensors", training, progress)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(target.parent)
    for old in _unneeded(checkpoints(run), config.training):
        shutil.rmtree(old)


def whole_weights(denoiser: NetworkDenoiser) -> dict[str, Tensor]:
    """The weights in one piece. All processes must ask for them."""
    return {name: whole(tensor) for name, tensor in denoiser.network.state_dict().items()}


def _unneeded(whole: list[Path], config: TrainingConfig) -> list[Path]:
    """The checkpoints, of those given from the oldest on, that are neither among the latest nor the first of an interval."""
    first = (
        {int(path.name) // config.keep_every: path for path in reversed(whole)}
        if config.keep_every
        else {}
    )
    return [path for path in whole[: -config.keep_last] if path not in first.values()]


def load_latest(run: Path, state: State) -> None:
    """Puts the latest checkpoint of a run, if there is one, into a fresh state, in every process.

    A damaged one is set aside under another name, said so, and the one before is taken.

    Raises:
        BadInput: if all are damaged, or one does not fit.
    """
    whole_ones = checkpoints(run)
    found, problem = distributed.broadcast(
        _readable(whole_ones) if distributed.is_main_process() else None
    ) or (
        None,
        None,
    )
    if found is None and problem is not None:
        raise BadInput(problem)
    if found is not None:
        load_checkpoint(found, state)
    if distributed.is_main_process():
        for damaged in (path for path in whole_ones if found is not None and path > found):
            damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
            log.warning(
                "%s is damaged and was set aside; the run continues from the checkpoint before",
                damaged,
            )


def _readable(whole_ones: list[Path]) -> tuple[Path | None, str | None]:
    """The latest checkpoint whose files can be read, or what is wrong with the latest one."""
    problem = None
    for checkpoint in reversed(whole_ones):
        try:
            for file in ("training.safetensors", "model.safetensors"):
                read_tensors(checkpoint / file)
        except BadInput as error:
            problem = problem or str(error)
        else:
            return checkpoint, problem
    return None, problem


def load_checkpoint(checkpoint: Path, state: State) -> None:
    """Puts a checkpoint's values into a fresh state.

    Raises:
        BadInput: if a file of the checkpoint is damaged or does not fit.
    """
    tensors, progress = read_tensors(checkpoint / "training.safetensors")
    averaged, _ = read_tensors(checkpoint / "model.safetensors")
    try:
        weights = _under("net.", tensors)
        if state.uncertainty is not None:
            state.uncertainty.weight.data.copy_(weights.pop(LEARNED_WEIGHT))
        _load_weights(state.denoiser.network, weights)
        _load_weights(state.averages.main.network, averaged)
        for index, network in enumerate(state.averages.power):
            _load_weights(network, _under(f"average.{index}.", tensors))
        _load_moments(state, tensors)
        for name, value in vars(state.sums).items():
            value.copy_(tensors[f"sum.{name}"])
        state.averages.seen.copy_(
            tensors.get("seen", torch.tensor(int(str(progress["images"]))))
        )  # none in the earliest ones
        state.images, state.seconds = int(str(progress["images"])), float(str(progress["seconds"]))
        state.macs = float(str(progress["macs"]))
    except (RuntimeError, KeyError) as error:
        raise BadInput(f"The checkpoint {checkpoint} does not fit this run: {error}.") from error
    if not distributed.is_main_process():  # the first process holds the sums of all
        state.sums.loss.zero_()
        state.sums.count.zero_()


def _load_weights(network: nn.Module, values: dict[str, Tensor]) -> None:
    known = network.state_dict()
    network.load_state_dict(
        {
            name: placed_like(known[name], value) if name in known else value
            for name, value in values.items()
        }
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"sum.{name}", value) for name, value in vars(state.sums).items())
    yield "seen", state.averages.seen
    yield from ((f"average.{name}", tensor) for name, tensor in state.averages.tensors())
    kept = state.denoiser.network.state_dict()
    yield from (
        (f"net.{name}", buffer)
        for name, buffer in state.denoiser.network.named_buffers()
        if name in kept
    )
    for name, parameter in state.named_parameters():
        yield f"net.{name}", parameter
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


def _load_moments(state: State, tensors: dict[str, Tensor]) -> None:
    for name, parameter in state.named_parameters():
        if f"step.{name}" in tensors:  # a decoder that has had no sample yet has no moments
            moments = {m: placed_like(parameter, tensors[f"{m}.{name}"]).detach() for m in MOMENTS}
            step = tensors[f"step.{name}"].to(parameter.device)
            state.optimizer.state[parameter] = {**moments, "step": step}
