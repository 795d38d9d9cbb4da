"""Encoder reuse against fewer steps, for the same multiply-accumulates.

    python benchmarks/reuse.py RUN... [--images 32] [--steps 8 12 16 24 32]

For each model and solver: distance of samples to the solution in small steps (RMS, images from -1
to 1), multiply-accumulates of a sample, and seconds of a sample in a batch, when every call, every
second and every third call evaluates the encoder. The script prints tables in Markdown, sorted by
cost; the report is ``reuse.md``.
"""

import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import tyro
from boundaries import announced, solve
from machine import device_name
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.model import Model
from multistage_diffusion.sampling import SampleOptions, noise
from multistage_diffusion.sampling.calls import sampling_grid
from multistage_diffusion.sampling.draw import labels_of
from multistage_diffusion.sampling.path import rms
from multistage_diffusion.sampling.reuse import ReusingDenoiser

SOLVER_NAMES = ("dpmpp-2m", "euler")
PERIODS = (1, 2, 3)


@dataclass(frozen=True)
class Costs:
    """Multiply-accumulates of a call by stage, whole and without its encoder."""

    full: list[int]
    reused: list[int]


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    images: int = 32
    steps: tuple[int, ...] = (8, 12, 16, 24, 32)
    grid: str = "log-snr"
    reference_steps: int = 200


def reused_levels(model: Model, grid: Tensor, period: int) -> list[float]:
    """All levels but every ``period``-th since their stage began."""
    levels = grid[:-1]
    stages, reused, calls = model.denoiser.stages.index(levels).tolist(), list[float](), 0
    for i, level in enumerate(levels.tolist()):
        calls = 0 if i == 0 or stages[i] != stages[i - 1] else calls + 1
        if calls % period:
            reused.append(level)
    return reused


def macs_of(model: Model, grid: Tensor, reused: list[float], costs: Costs) -> int:
    """Of a sample."""
    levels = grid[:-1]
    stages = model.denoiser.stages.index(levels).tolist()
    pairs = zip(levels.tolist(), stages, strict=True)
    return sum((costs.reused if level in reused else costs.full)[stage] for level, stage in pairs)


@torch.inference_mode()
def measure(model: Model, settings: Settings) -> None:
    """Prints a table for a model."""
    indices = range(settings.images)
    labels = Conditions(labels_of(model, SampleOptions(), indices))
    start = noise(7, indices, model.config.shape)
    costs = Costs([cost.macs for cost in stage_costs(model.config)], reused_macs(model.config))
    print(f"MACs of a call by stage: {costs.full}, with reuse {costs.reused}\n")

    fine = SampleOptions(solver="heun", steps=settings.reference_steps, grid=settings.grid)
    exact = solve(model, partial(model.denoiser, conditions=labels), start, fine)
    for solver in SOLVER_NAMES:
        rows = []
        for steps, period in product(settings.steps, PERIODS):
            options = SampleOptions(solver=solver, steps=steps, grid=settings.grid)
            grid = sampling_grid(model.config, options)
            reused = reused_levels(model, grid, period)
            denoiser = ReusingDenoiser(model.denoiser, reused)
            begun = time.perf_counter()
            found = solve(model, partial(denoiser, conditions=labels), start, options)
            seconds = (time.perf_counter() - begun) / settings.images
            macs = macs_of(model, grid, reused, costs)
            rows.append((macs, steps, period, rms(found - exact), seconds))
        print(f"{solver}\n\n| MACs of a sample | steps | encoder every | distance | ms |")
        print("|---|---|---|---|---|")
        for macs, steps, period, error, seconds in sorted(rows):
            cells = f"{macs / 1e6:,.0f} M", str(steps), str(period), f"{error:.4f}"
            print(f"| {' | '.join(cells)} | {1e3 * seconds:.1f} |")
        print(flush=True)


def main(settings: Settings) -> None:
    """Measures all models."""
    print(f"{device_name()}, {settings.images} images\n")
    for model in announced(settings.runs):
        measure(model, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
