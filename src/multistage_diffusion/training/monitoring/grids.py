"""Grids of samples during training."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.data.png import grid_image, save_png
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.sampling.draw import SampleOptions, generate
from multistage_diffusion.training.checkpoints import whole_weights
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.state import State

__all__ = ["GRID", "draw_grids"]


GRID = 16


def draw_grids(run: Path, config: RunConfig, state: State, device: torch.device) -> None:
    """Draws samples with the weights as they are and with the averaged ones. All processes call it, the first one draws."""
    raw, averaged = whole_weights(state.denoiser), whole_weights(state.averages.main)
    if distributed.is_main_process():
        for name, weights in (("raw", raw), ("averaged", averaged)):
            _draw_grid(run / "grids" / f"{state.images:012d}-{name}.png", config, weights, device)
    distributed.barrier()


def _draw_grid(
    path: Path, config: RunConfig, weights: Mapping[str, Tensor], device: torch.device
) -> None:
    """Samples from fixed seeds as one picture."""
    denoiser = build_denoiser(config.model).eval()
    denoiser.network.load_state_dict(weights)
    pixels = generate(Model(denoiser, config.model, 0), SampleOptions(), range(GRID), device)
    save_png(path, grid_image(pixels, columns=GRID // 2))
