"""Images from a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.images import to_pixels
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.solvers import SOLVERS, SolverName
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.stages import Stages

__all__ = [
    "GRIDS",
    "SampleOptions",
    "check_label",
    "evaluations_per_stage",
    "generate",
    "sampling_grid",
]


GRIDS = {"karras": karras_grid, "log-snr": log_snr_grid}


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How images are drawn."""

    solver: SolverName = "heun"
    """heun takes two evaluations of the network a step, the others one. dpm-3s and dpmpp-3s space their steps in log sigma."""
    steps: int = 18
    """Steps from pure noise to the image."""
    grid: Literal["karras", "log-snr"] = "karras"
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
    """The noise levels a sampler visits, decreasing to 0."""
    return GRIDS[options.grid](options.steps, *SCHEDULES[config.schedule].sampling_range)


@torch.inference_mode()
def generate(
    model: Model, options: SampleOptions, indices: Sequence[int], device: torch.device | str = "cpu"
) -> Tensor:
    """Draws the images with these indices: uint8 ``[len(indices), C, H, W]``, on the CPU.

    Raises:
        BadInput: if a label is asked for that the model does not have.
    """
    denoiser = model.denoiser.to(device)
    conditions = Conditions(labels=_labels(model, options, indices))
    grid = sampling_grid(model.config, options)
    start = noise(options.seed, indices, model.config.shape).to(device) * float(grid[0])
    bound = partial(denoiser, conditions=conditions.to(device))
    return to_pixels(SOLVERS[options.solver](bound, start, grid)).cpu()


def check_label(model: Model, options: SampleOptions) -> None:
    """Raises BadInput if a label is asked for that the model does not have."""
    classes = model.config.classes
    if options.label is not None and not 0 <= options.label < classes:
        has = f"has the classes 0 to {classes - 1}" if classes else "is unconditional"
        raise BadInput(f"There is no class {options.label}: the model {has}.")


def _labels(model: Model, options: SampleOptions, indices: Sequence[int]) -> Tensor | None:
    check_label(model, options)
    classes = model.config.classes
    if not classes:
        return None
    return torch.tensor(
        [index % classes if options.label is None else options.label for index in indices]
    )


def evaluations_per_stage(config: ModelConfig, options: SampleOptions) -> list[int]:
    """How often a sampler calls each stage's decoder for one image."""
    stages, levels = Stages(config.boundaries), []

    def count(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return x

    SOLVERS[options.solver](count, torch.zeros(1, 1, 1, 1), sampling_grid(config, options))
    counts: list[int] = (
        stages.index(torch.tensor(levels, dtype=torch.float64))
        .bincount(minlength=len(stages))
        .tolist()
    )
    return counts
