"""Speed of training steps: forward, backward, Adam and averaged weights.

    python benchmarks/train.py [--preset edm-cifar10] [--batch-size 16] [--repeats 3] [--compile]

Everything is measured in one run, on the GPU if there is one: steps of each stage and of the unified twin, mixed batches and
single-stage batches in the same shares, bf16 and float32, as written and compiled, and the machine's own rate for a bf16 3x3
convolution of 256 channels at 32x32, the best of several batches and layouts. Medians, as a table in Markdown; the report is
``train.md``.
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import tyro

from multistage_diffusion.config import DataInfo, RunConfig
from multistage_diffusion.denoiser import build_denoiser, fastest_layout, lay_out
from multistage_diffusion.evaluation.cost import stage_costs, unified
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.compiled import compile_parts
from multistage_diffusion.training.draws import Levels
from multistage_diffusion.training.gradients import part_norms
from multistage_diffusion.training.state import State

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "edm-cifar10"
    batch_size: int = 16
    repeats: int = 3
    """Timings of which the median is taken, after one that is not counted."""
    compile: bool = False
    """Measure compiled networks too, which takes minutes to begin with."""


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds until ``work`` is done, on the GPU too."""
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of ``work``."""
    return statistics.median([seconds_of(work) for _ in range(repeats + 1)][1:])


def convolution_rate(repeats: int) -> float:
    """Multiply-accumulates a second of the best bf16 convolution."""
    rates = []
    for batch in (8, 32, 128):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(batch, 256, 32, 32, device=DEVICE, dtype=torch.bfloat16).to(memory_format=layout)
            w = torch.randn(256, 256, 3, 3, device=DEVICE, dtype=torch.bfloat16).to(memory_format=layout)
            seconds = median(lambda x=x, w=w: torch.conv2d(x, w, padding=1), 2 * repeats)  # type: ignore[misc]
            rates.append(batch * 32 * 32 * 256 * 256 * 9 / seconds)
    return max(rates)


def configuration(name: str) -> RunConfig:
    """A run of the preset on images of its usual size."""
    preset = PRESETS[name]
    model = preset_model(preset, choose_stages(preset, None))
    return RunConfig(model=model, training=preset.training, data=DataInfo(path="", fingerprint="", images=0))


class Steps:
    """A network and the steps of its training."""

    def __init__(self, config: RunConfig, dtype: torch.dtype, batch: int, compiled: bool = False) -> None:
        denoiser = lay_out(build_denoiser(config.model).to(DEVICE))
        denoiser.dtype = dtype
        self.state = State.begin(denoiser, config.training)
        if compiled:
            compile_parts(denoiser.network)
        self.y, self.noise = (torch.randn(batch, *config.model.shape, device=DEVICE) for _ in range(2))
        self.y, self.noise = (tensor.to(memory_format=fastest_layout(denoiser)) for tensor in (self.y, self.noise))

    def __call__(self, sigma: torch.Tensor) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(self.y, sigma, self.noise).mean().backward()
        part_norms(self.state.denoiser.network)
        self.state.optimizer.step()
        self.state.count([1] * len(self.state.denoiser.stages))


def levels(config: RunConfig, shares: Sequence[float], batch: int, seed: int = 0) -> torch.Tensor:
    """Levels of a batch in which stages have these shares."""
    chosen = tuple(share or 1e-12 for share in shares)
    drawn = Levels.of(replace(config, training=replace(config.training, shares=chosen)))
    return drawn.draw(batch, torch.Generator().manual_seed(seed))


def row(name: str, seconds: float, macs: float, batch: int, rate: float) -> str:
    """A line of the table."""
    return f"| {name} | {batch / seconds:.2f} | {macs * batch / seconds / 1e9:.0f} | {macs * batch / seconds / rate:.2f} |"


class Table:
    """Measures and prints line by line."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, configuration(settings.preset)
        self.costs = [cost.training_macs for cost in stage_costs(self.config.model)]
        self.rate = convolution_rate(settings.repeats)

    def stages(self, steps: Steps, name: str, stages: Sequence[int]) -> list[float]:
        """Seconds of a batch in each of some stages."""
        batch, times = self.settings.batch_size, []
        for stage in stages:
            sigma = levels(self.config, [float(k == stage) for k in range(len(self.costs))], batch)
            times.append(median(lambda sigma=sigma: steps(sigma), self.settings.repeats))  # type: ignore[misc]
            print(row(f"{name}, stage {stage + 1}", times[-1], self.costs[stage], batch, self.rate), flush=True)
        return times

    def mixed(self, steps: Steps, name: str, alone: Sequence[float]) -> str:
        """Batches with equal shares, whose counts differ from one to the next, against single-stage ones; returns a sentence."""
        batch, stages = self.settings.batch_size, steps.state.denoiser.stages
        batches = [levels(self.config, [1.0] * len(alone), batch, seed) for seed in range(4)]
        counts = [stages.index(sigma).bincount(minlength=len(alone)).tolist() for sigma in batches]
        seconds = [median(lambda sigma=sigma: steps(sigma), self.settings.repeats) for sigma in batches]  # type: ignore[misc]
        shares = [sum(column) / (batch * len(batches)) for column in zip(*counts, strict=True)]
        macs, apart = (sum(s * value for s, value in zip(shares, values, strict=True)) for values in (self.costs, alone))
        together = statistics.mean(seconds)
        print(row(f"{name}, mixed {' '.join(map(str, counts))}", together, macs, batch, self.rate), flush=True)
        return f"{name}: mixed batches against single-stage ones in the same shares: {together / apart - 1:+.1%} time"

    def twin(self, name: str, compiled: bool) -> None:
        """The unified twin."""
        config = replace(self.config, model=unified(self.config.model))
        steps, batch = Steps(config, torch.bfloat16, self.settings.batch_size, compiled), self.settings.batch_size
        sigma = SCHEDULES[config.model.schedule].sigma(0.5).expand(batch)
        seconds = median(lambda: steps(sigma), self.settings.repeats)
        print(row(name, seconds, stage_costs(config.model)[0].training_macs, batch, self.rate), flush=True)


def main(settings: Settings) -> None:
    """Measures and prints."""
    table = Table(settings)
    where = (
        torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{platform.processor()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}, torch {torch.__version__}; {settings.preset}, batch {settings.batch_size}, medians of {settings.repeats}")
    print(f"bf16 convolution: {table.rate / 1e9:.0f} GMAC/s\n")
    print("| steps | images/s | GMAC/s | of the convolution's rate |\n|---|---|---|---|")
    sentences = []
    for compiled, name in ((False, "bf16"), (True, "bf16, compiled"))[: 1 + settings.compile]:
        steps = Steps(table.config, torch.bfloat16, settings.batch_size, compiled)
        times = table.stages(steps, name, range(len(table.costs)))
        sentences.append(table.mixed(steps, name, times))
        table.twin(f"{name}, unified twin", compiled)
        if not compiled:
            (plain,) = table.stages(Steps(table.config, torch.float32, settings.batch_size), "float32", [1])
        sentences.append(f"{name} against float32, stage 2: {plain / times[1]:.2f} times as fast")
    print("\n" + "\n".join(sentences))


if __name__ == "__main__":
    main(tyro.cli(Settings))
