"""Images from a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multistage_diffusion.checkpoint import Model
from multistage_diffusion.config import ModelConfig
from multistage_diffusion.data.images import to_pixels
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.sampling import SOLVERS, SolverName, karras_grid, log_snr_grid, noise
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.stages import Stages

__all__ = ["SampleOptions", "evaluations_per_stage", "generate", "grid_image", "sampling_grid", "save_png", "to_image"]

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
def generate(model: Model, options: SampleOptions, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Draws the images with these indices: uint8 ``[len(indices), C, H, W]``, on the CPU.

    Raises:
        BadInput: if a label is asked for that the model does not have.
    """
    denoiser = model.denoiser.to(device)
    labels = _labels(model, options, indices)
    grid = sampling_grid(model.config.model, options)
    start = noise(options.seed, indices, model.config.model.shape).to(device) * float(grid[0])
    bound = partial(denoiser, labels=None if labels is None else labels.to(device))
    return to_pixels(SOLVERS[options.solver](bound, start, grid)).cpu()


def check_label(model: Model, options: SampleOptions) -> None:
    """Raises BadInput if a label is asked for that the model does not have."""
    classes = model.config.model.classes
    if options.label is not None and not 0 <= options.label < classes:
        has = f"has the classes 0 to {classes - 1}" if classes else "is unconditional"
        raise BadInput(f"There is no class {options.label}: the model {has}.")


def _labels(model: Model, options: SampleOptions, indices: Sequence[int]) -> Tensor | None:
    check_label(model, options)
    classes = model.config.model.classes
    if not classes:
        return None
    return torch.tensor([index % classes if options.label is None else options.label for index in indices])


def evaluations_per_stage(config: ModelConfig, options: SampleOptions) -> list[int]:
    """How often a sampler calls each stage's decoder for one image."""
    stages, levels = Stages(config.boundaries), []

    def count(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return x

    SOLVERS[options.solver](count, torch.zeros(1, 1, 1, 1), sampling_grid(config, options))
    counts: list[int] = stages.index(torch.tensor(levels, dtype=torch.float64)).bincount(minlength=len(stages)).tolist()
    return counts


def to_image(pixels: Tensor) -> Image.Image:
    """One image, uint8 ``[C, H, W]``, for saving; grey for one channel."""
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def grid_image(pixels: Tensor, columns: int, least: int = 48) -> Image.Image:
    """Images side by side, row by row, with a line between them; small ones are enlarged to ``least`` pixels a side."""
    factor = max(1, -(-least // min(pixels.shape[2:])))
    big = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, channels, height, width = big.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = torch.full((channels, rows * (height + 2) - 2, columns * (width + 2) - 2), 255, dtype=torch.uint8)
    for index, image in enumerate(big):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        canvas[:, top : top + height, left : left + width] = image
    return to_image(canvas)


def save_png(path: Path, image: Image.Image) -> None:
    """Writes a PNG file, atomically."""
    content = BytesIO()
    image.save(content, "PNG")
    write_atomically(path, content.getvalue())
