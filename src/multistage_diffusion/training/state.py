"""The state of a training run, and its checkpoints.

``RUN/checkpoints/<images>/`` holds ``model.safetensors`` (averaged weights, ready to sample from) and
``training.safetensors`` (weights, Adam's moments, running sums). A checkpoint is written to a temporary folder and renamed, so
one that exists is whole. The latest are kept, and one for each interval of images if asked for.
"""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.checkpoint import read_tensors, save_model, save_tensors
from multistage_diffusion.config import RunConfig, TrainingConfig
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput

__all__ = ["State", "checkpoints", "images_seen", "load_checkpoint", "save_checkpoint"]

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class State:
    """All that changes during training. Randomness is a function of ``images`` and needs no state."""

    denoiser: NetworkDenoiser
    optimizer: torch.optim.Optimizer
    average: NetworkDenoiser
    """The exponential moving average of the weights."""
    loss_sum: Tensor
    """Sum of the losses since the last record in each stage, float64 ``[stages]``."""
    loss_count: Tensor
    """Their number, float64 ``[stages]``."""
    images: int = 0
    """Images seen."""
    seconds: float = field(default=0.0)
    """Time spent, over all sittings."""

    @staticmethod
    def begin(denoiser: NetworkDenoiser, config: TrainingConfig) -> "State":
        """The state before the first step."""
        average = copy.deepcopy(denoiser).eval().requires_grad_(False)
        sums = torch.zeros(2, len(denoiser.stages), dtype=torch.float64)
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        decay = config.weight_decay
        optimizer = kind(denoiser.parameters(), config.learning_rate, betas=(0.9, 0.999), weight_decay=decay, fused=True)
        return State(denoiser, optimizer, average, sums[0], sums[1])

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """``average <- decay * average + (1 - decay) * weights``."""
        torch._foreach_lerp_(list(self.average.parameters()), list(self.denoiser.parameters()), 1 - decay)


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(p for p in run.glob("checkpoints/*") if p.is_dir() and p.name.isdigit())


def images_seen(run: Path) -> int:
    """How far the latest checkpoint of a run is, in images; 0 without one."""
    return max((int(checkpoint.name) for checkpoint in checkpoints(run)), default=0)


def save_checkpoint(run: Path, state: State, config: RunConfig) -> Path:
    """Writes a checkpoint and removes those that need not be kept."""
    target = run / "checkpoints" / f"{state.images:012d}"
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    save_model(temporary / "model.safetensors", state.average, config, state.images)
    save_tensors(temporary / "training.safetensors", dict(_tensors(state)), {"images": state.images, "seconds": state.seconds})
    temporary.replace(target)
    for old in _unneeded(checkpoints(run), config.training):
        shutil.rmtree(old)
    return target


def _unneeded(whole: list[Path], config: TrainingConfig) -> list[Path]:
    """The checkpoints, of those given from the oldest on, that are neither among the latest nor the first of an interval."""
    first = {int(path.name) // config.keep_every: path for path in reversed(whole)} if config.keep_every else {}
    return [path for path in whole[: -config.keep_last] if path not in first.values()]


def load_checkpoint(checkpoint: Path, state: State) -> None:
    """Puts a checkpoint's values into a fresh state.

    Raises:
        BadInput: if a file of the checkpoint is damaged or does not fit.
    """
    tensors, progress = read_tensors(checkpoint / "training.safetensors")
    averaged, _ = read_tensors(checkpoint / "model.safetensors")
    try:
        state.denoiser.network.load_state_dict({name[4:]: t for name, t in tensors.items() if name.startswith("net.")})
        state.average.network.load_state_dict(averaged)
        _load_moments(state, tensors)
        state.loss_sum, state.loss_count = tensors["loss_sum"], tensors["loss_count"]
        state.images, state.seconds = int(str(progress["images"])), float(str(progress["seconds"]))
    except (RuntimeError, KeyError) as error:
        raise BadInput(f"The checkpoint {checkpoint} does not fit this run: {error}.") from error


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    yield "loss_sum", state.loss_sum
    yield "loss_count", state.loss_count
    for name, parameter in state.denoiser.network.named_parameters():
        yield f"net.{name}", parameter
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


def _load_moments(state: State, tensors: dict[str, Tensor]) -> None:
    for name, parameter in state.denoiser.network.named_parameters():
        if f"step.{name}" in tensors:  # a decoder that has had no sample yet has no moments
            moments = {m: tensors[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}
            laid_out = {m: torch.empty_like(parameter).copy_(t) if t.shape == parameter.shape else t for m, t in moments.items()}
            state.optimizer.state[parameter] = {m: t.detach() for m, t in laid_out.items()}
