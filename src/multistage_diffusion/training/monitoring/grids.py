"""Grids of samples during training."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.data.png import grid_image, save_png, shown_bands
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.run import Run
from multistage_diffusion.sampling import SampleOptions, generate
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.distributed.sharding import whole_weights
from multistage_diffusion.training.state import State

__all__ = ["draw_grids"]

IMAGES = 16
COLUMNS = 8


def draw_grids(run: Run, config: RunConfig, state: State, device: torch.device) -> None:
    """Draws samples with raw and with averaged weights. All ranks call it, rank 0 draws."""
    raw = whole_weights(state.denoiser.network)
    averaged = whole_weights(state.averages.main.network)
    if distributed.is_main_process():
        _draw_grid(run.grid(state.images, "raw"), config, raw, device)
        _draw_grid(run.grid(state.images, "averaged"), config, averaged, device)
    distributed.barrier()


def _draw_grid(
    path: Path, config: RunConfig, weights: Mapping[str, Tensor], device: torch.device
) -> None:
    """Draws samples from fixed seeds as one picture."""
    denoiser = build_denoiser(config.model).eval()
    denoiser.network.load_state_dict(weights)
    pixels = generate(Model(denoiser, config.model, 0), SampleOptions(), range(IMAGES), device)
    shown = shown_bands(pixels, config.training.monitoring.bands)
    save_png(path, grid_image(shown, columns=COLUMNS))
