"""Figures that explain the stages: python examples/explain.py DATA --stages FILE --out FOLDER

- ``stages.png``: one image at noise levels of each stage, and what the optimal denoiser of the data
  makes of it: the image itself at little noise, the mean of all images at much.
- ``costs.svg``: multiply-accumulates of a call in each stage of the three bases' networks, of the
  encoder and of the decoder, beside the unified network's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from torch import Tensor

from multistage_diffusion import OptimalDenoiser, ReadOptions, Stages, load
from multistage_diffusion.cost import reused_macs, stage_costs, unified
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.report.colours import GRID, stage_colour
from multistage_diffusion.space import to_unit_range

BASES = {"edm-cifar10": "EDM", "dpm-cifar10": "DPM-Solver", "ldm-celebahq256": "latent diffusion"}


@dataclass(frozen=True)
class Settings:
    """What is drawn."""

    data: Annotated[str, tyro.conf.Positional]
    """As for ``multistage cluster``."""
    stages: Path
    """From ``multistage cluster``."""
    out: Path = Path("figures")
    size: int | None = None
    """Side of the images, if they have several."""
    image: int = 0
    """Which image is shown."""
    levels: int = 3
    """Noise levels of each stage."""
    seed: int = 0


def levels_of(stages: Stages, low: float, high: float, count: int) -> list[tuple[int, float]]:
    """Noise levels inside each stage, at equal distances in log sigma, smallest first."""
    found = []
    for stage in range(len(stages)):
        first, last = stages.bounds(stage)
        ends = np.log([max(first, low), min(last, high)])
        inner = np.linspace(*ends, 2 * count + 1)[1::2]
        found += [(stage, float(sigma)) for sigma in np.exp(inner)]
    return found


def show(axes: Axes, image: Tensor) -> None:
    """Draws an image of values from -1 to 1, ``[C, H, W]``."""
    pixels = ((image + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_stages(settings: Settings) -> None:
    """Draws the image at the levels, and the optimal denoiser's answers."""
    size = None if settings.size is None else (settings.size, settings.size)
    images = load(settings.data, ReadOptions(size=size))
    denoiser = OptimalDenoiser(images.pixels)
    y = to_unit_range(torch.as_tensor(images.pixels[settings.image : settings.image + 1]))
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(settings.seed))
    levels = levels_of(Stages.load(settings.stages), 0.02, 80.0, settings.levels)
    figure, axes = plt.subplots(2, len(levels), figsize=(1.05 * len(levels), 2.75))
    for column, (stage, sigma) in enumerate(levels):
        x = y + sigma * noise
        show(axes[0, column], (x / (1 + sigma**2) ** 0.5)[0])
        show(axes[1, column], denoiser(x, sigma)[0])
        colour = stage_colour(stage)
        axes[0, column].set_title(f"{sigma:.2g}", color=colour, fontsize=10)
        if column % settings.levels == settings.levels // 2:
            place = {"xycoords": "axes fraction", "ha": "center", "fontsize": 11}
            axes[0, column].annotate(f"stage {stage + 1}", (0.5, 1.35), color=colour, **place)
    axes[0, 0].set_ylabel("noisy")
    axes[1, 0].set_ylabel("denoised")
    figure.subplots_adjust(0.03, 0.01, 0.995, 0.8, wspace=0.06, hspace=0.06)
    figure.savefig(settings.out / "stages.png", dpi=110)


def draw_costs(settings: Settings) -> None:
    """Draws a bar for each stage of the networks of the three bases."""
    figure, panels = plt.subplots(1, len(BASES), figsize=(9, 2.8))
    for axes, (name, base) in zip(panels, BASES.items(), strict=True):
        preset = PRESETS[name]
        config = preset_model(preset, Stages(preset.diffusion.boundaries))
        draw_bars(axes, config)
        axes.set_title(f"{base} ({name})", fontsize=9)
    panels[0].set_ylabel("billion MACs of a call")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(settings.out / "costs.svg", metadata={"Date": None})


def draw_bars(axes: Axes, config: ModelConfig) -> None:
    """The encoder's part below the decoder's, and the unified network as a line."""
    whole = np.array([cost.macs for cost in stage_costs(config)]) / 1e9
    decoder = np.array(reused_macs(config)) / 1e9
    names = [f"stage {stage + 1}" for stage in range(len(whole))]
    colours = [stage_colour(stage) for stage in range(len(whole))]
    axes.bar(names, whole - decoder, color=GRID, label="shared encoder")
    axes.bar(names, decoder, bottom=whole - decoder, color=colours, label="decoder of the stage")
    base = stage_costs(unified(config))[0].macs / 1e9
    axes.axhline(base, color="black", linestyle="--", linewidth=1, label="unified network")


def main(settings: Settings) -> None:
    """Draws both."""
    settings.out.mkdir(parents=True, exist_ok=True)
    draw_stages(settings)
    draw_costs(settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
