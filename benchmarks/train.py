"""Speed of training steps: forward, backward, Adam and averaged weights.

    python benchmarks/train.py [--preset edm-cifar10] [--batch-size 16] [--repeats 3]

Everything is measured in one run, on the GPU if there is one: steps of each stage and of the unified twin, a mixed batch and
single-stage batches in the same shares, bf16 and float32, and the machine's own rate for a bf16 3x3 convolution of 256
channels at 32x32, the best of several batches and layouts. Medians, as a table in Markdown; the report is ``train.md``.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import tyro

from multistage_diffusion.config import DataInfo, RunConfig
from multistage_diffusion.denoiser import build_denoiser, fastest_layout, lay_out
from multistage_diffusion.evaluation.cost import stage_costs, unified
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.draws import Levels
from multistage_diffusion.training.state import State

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "edm-cifar10"
    batch_size: int = 16
    repeats: int = 3
    """Timings of which the median is taken, after one that is not counted."""


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

    def __init__(self, config: RunConfig, dtype: torch.dtype, batch: int) -> None:
        denoiser = lay_out(build_denoiser(config.model).to(DEVICE))
        denoiser.dtype = dtype
        self.state = State.begin(denoiser, config.training)
        self.y, self.noise = (torch.randn(batch, *config.model.shape, device=DEVICE) for _ in range(2))
        self.y, self.noise = (tensor.to(memory_format=fastest_layout(denoiser)) for tensor in (self.y, self.noise))

    def __call__(self, sigma: torch.Tensor) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(self.y, sigma, self.noise).mean().backward()
        self.state.optimizer.step()
        self.state.update_average(0.99)


def levels(config: RunConfig, stage: int, batch: int) -> torch.Tensor:
    """Levels of one stage."""
    shares = tuple(float(k == stage) or 1e-12 for k in range(len(config.model.boundaries) + 1))
    drawn = Levels.of(replace(config, training=replace(config.training, shares=shares)))
    return drawn.draw(batch, torch.Generator().manual_seed(0))


def row(name: str, seconds: float, macs: float, batch: int, rate: float) -> str:
    """A line of the table."""
    return f"| {name} | {batch / seconds:.2f} | {macs * batch / seconds / 1e9:.0f} | {macs * batch / seconds / rate:.2f} |"


def main(settings: Settings) -> None:
    """Measures and prints."""
    batch, repeats = settings.batch_size, settings.repeats
    config = configuration(settings.preset)
    twin = replace(config, model=unified(config.model))
    rate, costs = convolution_rate(repeats), stage_costs(config.model)
    where = (
        torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{platform.processor()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}, torch {torch.__version__}; {settings.preset}, batch {batch}, medians of {repeats}")
    print(f"bf16 convolution: {rate / 1e9:.0f} GMAC/s\n")
    print("| steps | images/s | GMAC/s | of the convolution's rate |\n|---|---|---|---|")
    stages, times = range(len(costs)), {}
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "float32")):
        steps = Steps(config, dtype, batch)
        for stage in stages if dtype == torch.bfloat16 else (1,):
            sigma = levels(config, stage, batch)
            times[name, stage] = median(lambda steps=steps, sigma=sigma: steps(sigma), repeats)  # type: ignore[misc]
            print(row(f"{name}, stage {stage + 1}", times[name, stage], costs[stage].training_macs, batch, rate), flush=True)
        if dtype == torch.bfloat16:
            counts = [len(part) for part in torch.arange(batch).chunk(len(costs))]
            mixed = torch.cat([levels(config, stage, batch)[:count] for stage, count in enumerate(counts)])
            macs = sum(count * cost.training_macs for count, cost in zip(counts, costs, strict=True)) / batch
            together = median(lambda steps=steps, mixed=mixed: steps(mixed), repeats)  # type: ignore[misc]
            print(row(f"{name}, mixed {counts}", together, macs, batch, rate))
            apart = sum(count / batch * times[name, stage] for stage, count in enumerate(counts))
    alone = Steps(twin, torch.bfloat16, batch)
    seconds = median(lambda: alone(SCHEDULES[config.model.schedule].sigma(0.5).expand(batch)), repeats)
    print(row("bf16, unified twin", seconds, stage_costs(twin.model)[0].training_macs, batch, rate))
    print(f"\nbf16 against float32, stage 2: {times['float32', 1] / times['bf16', 1]:.2f} times as fast")
    print(f"mixed batches against single-stage ones in the same shares: {together / apart - 1:+.1%} time")


if __name__ == "__main__":
    main(tyro.cli(Settings))
