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
from multistage_diffusion.sampling.draw import labels_of
from multistage_diffusion.sampling.path import rms
from multistage_diffusion.sampling.reuse import ReusingDenoiser

SOLVER_NAMES = ("dpmpp-2m", "euler")
PERIODS = (1, 2, 3)


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    images: int = 32
    steps: tuple[int, ...] = (8, 12, 16, 24, 32)
    grid: str = "log-snr"
    reference_steps: int = 200


@dataclass
class Counted:
    """A reusing denoiser that adds up what it costs."""

    reusing: ReusingDenoiser
    full: list[int]
    reused: list[int]
    macs: int = 0

    def __call__(self, x: Tensor, sigma: Tensor | float, conditions: Conditions) -> Tensor:
        before = self.reusing.features
        denoised = self.reusing(x, sigma, conditions)
        kept = before is not None and self.reusing.features is not None
        same = kept and self.reusing.features.deepest is before.deepest  # type: ignore[union-attr]
        self.macs += (self.reused if same else self.full)[self.reusing.stage]
        return denoised


@torch.inference_mode()
def measure(model: Model, settings: Settings) -> None:
    """Prints a table for a model."""
    indices = range(settings.images)
    labels = Conditions(labels_of(model, SampleOptions(), indices))
    start = noise(7, indices, model.config.shape)
    full, reused = [cost.macs for cost in stage_costs(model.config)], reused_macs(model.config)
    print(f"MACs of a call by stage: {full}, with reuse {reused}\n")

    fine = SampleOptions(solver="heun", steps=settings.reference_steps, grid=settings.grid)
    exact = solve(model, partial(model.denoiser, conditions=labels), start, fine)
    for solver in SOLVER_NAMES:
        rows = []
        for steps, period in product(settings.steps, PERIODS):
            counted = Counted(ReusingDenoiser(model.denoiser, period), full, reused)
            options = SampleOptions(solver=solver, steps=steps, grid=settings.grid)
            begun = time.perf_counter()
            found = solve(model, partial(counted, conditions=labels), start, options)
            seconds = (time.perf_counter() - begun) / settings.images
            rows.append((counted.macs, steps, period, rms(found - exact), seconds))
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
