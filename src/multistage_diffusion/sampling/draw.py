"""Images from a trained model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
import tyro
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.sampling.grids import GRIDS, GridName
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.solvers import SOLVER_HELP, SOLVERS, SolverName
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.space import to_pixels
from multistage_diffusion.stages import Stages

__all__ = [
    "SampleOptions",
    "check_label",
    "evaluations_per_stage",
    "generate",
    "generate_batches",
    "sampling_grid",
]


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How images are drawn."""

    solver: Annotated[SolverName, tyro.conf.arg(help=SOLVER_HELP)] = "heun"
    steps: int = 18
    """Steps from pure noise to the image."""
    grid: GridName = "karras"
    """How the noise levels are spaced: evenly in sigma^(1/7), or evenly in log sigma."""
    seed: int = 0
    """Image i is a function of the seed and i only."""
    label: int | None = None
    """The class to draw, for a class-conditional model. By default the classes take turns."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"Sampling needs at least 1 step, not {self.steps}.")
        if self.seed < 0:
            raise BadInput(f"The seed must not be negative, not {self.seed}.")


def sampling_grid(config: ModelConfig, options: SampleOptions) -> Tensor:
    """The noise levels that a solver visits, decreasing to 0: float64 ``[steps + 1]``."""
    low, high = SCHEDULES[config.schedule].sampling_range
    return GRIDS[options.grid](options.steps, low, high)


@torch.inference_mode()
def generate(
    model: Model, options: SampleOptions, indices: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Draws the images with these indices: uint8 ``[len(indices), C, H, W]``, on the CPU.

    Raises:
        BadInput: if the model does not have the label.
    """
    denoiser = model.denoiser.to(device)
    conditions = Conditions(_labels(model, options, indices)).to(device)
    grid = sampling_grid(model.config, options)
    start = noise(options.seed, indices, model.config.shape).to(device) * float(grid[0])
    conditioned = partial(denoiser, conditions=conditions)
    return to_pixels(SOLVERS[options.solver](conditioned, start, grid)).cpu()


def generate_batches(
    model: Model, options: SampleOptions, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Draws images a batch at a time, on the accelerator if there is one.

    Yields:
        Indices, and their images as ``generate`` returns them.
    """
    device = torch.accelerator.current_accelerator() or "cpu"
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        yield part, generate(model, options, part, device)


def check_label(model: Model, options: SampleOptions) -> None:
    """Raises BadInput if the model does not have the label."""
    classes = model.config.classes
    if options.label is not None and not 0 <= options.label < classes:
        has = f"has the classes 0 to {classes - 1}" if classes else "is unconditional"
        raise BadInput(f"There is no class {options.label}: the model {has}.")


def _labels(model: Model, options: SampleOptions, indices: Sequence[int]) -> Tensor | None:
    """The label of each image, int64 ``[len(indices)]``; None for an unconditional model."""
    check_label(model, options)
    classes = model.config.classes
    if not classes:
        return None
    if options.label is not None:
        return torch.full((len(indices),), options.label)
    return torch.tensor([index % classes for index in indices])


def evaluations_per_stage(config: ModelConfig, options: SampleOptions) -> list[int]:
    """How often a solver evaluates each stage's decoder for one image."""
    levels: list[float] = []

    def count(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return x

    SOLVERS[options.solver](count, torch.zeros(1, 1, 1, 1), sampling_grid(config, options))
    stages = Stages(config.boundaries)
    index = stages.index(torch.tensor(levels, dtype=torch.float64))
    counts: list[int] = index.bincount(minlength=len(stages)).tolist()
    return counts
