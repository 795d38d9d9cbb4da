"""Speed of training steps: forward, backward, Adam and averaged weights.

    python benchmarks/train.py [--preset edm-cifar10] [--batch-sizes 16] [--repeats 3] [--compile]

Everything is measured in one run, on the GPU if there is one: steps of each stage and of the
unified twin, mixed batches and single-stage batches in the same shares, bf16 and float32, as
written and compiled, and the machine's own rate for a bf16 3x3 convolution of 256 channels at
32x32, the best of several batches and layouts. Medians, as a table in Markdown, on a GPU with the
memory that torch allocated at most; the report is ``train.md``.
"""

import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import tyro

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.denoiser import fastest_memory_format, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.compilation import compile_parts
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.distributed.gradients import part_norms
from multistage_diffusion.training.state import State

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "edm-cifar10"
    batch_sizes: tuple[int, ...] = (16,)
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
            x = torch.randn(batch, 256, 32, 32, device=DEVICE, dtype=torch.bfloat16).to(
                memory_format=layout
            )
            w = torch.randn(256, 256, 3, 3, device=DEVICE, dtype=torch.bfloat16).to(
                memory_format=layout
            )
            seconds = median(lambda x=x, w=w: torch.conv2d(x, w, padding=1), 2 * repeats)  # type: ignore[misc]
            rates.append(batch * 32 * 32 * 256 * 256 * 9 / seconds)
    return max(rates)


def configuration(name: str) -> RunConfig:
    """A run of the preset on images of its usual size."""
    preset = PRESETS[name]
    model = preset_model(preset, choose_stages(preset, None))
    return RunConfig(
        model=model, training=preset.training, data=DataInfo(path="", fingerprint="", images=0)
    )


class Steps:
    """A network and the steps of its training."""

    def __init__(self, config: RunConfig, dtype: torch.dtype, compiled: bool = False) -> None:
        denoiser = set_compute_dtype(build_denoiser(config.model).to(DEVICE), dtype)
        self.state, self.shape = State.initial(denoiser, config.training), config.model.shape
        if compiled:
            compile_parts(denoiser.network)

    def __call__(self, sigma: torch.Tensor) -> None:
        layout = fastest_memory_format(self.state.denoiser)
        y, noise = (
            torch.randn(len(sigma), *self.shape, device=DEVICE).to(memory_format=layout)
            for _ in range(2)
        )
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(y, sigma, noise).mean().backward()
        part_norms(self.state.modules())
        self.state.optimizer.step()
        self.state.count([1] * len(self.state.denoiser.stages))


def levels(config: RunConfig, shares: Sequence[float], batch: int, seed: int = 0) -> torch.Tensor:
    """Levels of a batch in which stages have these shares."""
    chosen = tuple(share or 1e-12 for share in shares)
    drawn = Levels.of(replace(config, training=replace_settings(config.training, shares=chosen)))
    return drawn.draw(batch, torch.Generator().manual_seed(seed))


def convolution_share(steps: Steps, sigma: torch.Tensor) -> float:
    """The part of a step's time that convolutions and their gradients take."""
    with torch.profiler.profile(acc_events=True) as profile:
        seconds_of(lambda: steps(sigma))
    times: Counter[bool] = Counter()
    for event in profile.key_averages():
        time = event.self_device_time_total if DEVICE.type == "cuda" else event.self_cpu_time_total
        times["convolution" in event.key] += time
    return times[True] / times.total()


class Table:
    """Measures and prints line by line."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, configuration(settings.preset)
        self.costs = [cost.training_macs for cost in stage_costs(self.config.model)]
        self.rate = convolution_rate(settings.repeats)

    def line(self, name: str, steps: Steps, batches: Sequence[torch.Tensor], macs: float) -> float:
        """Measures and prints a line of the table; returns mean of the medians of several batches
        in seconds.
        """
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = [median(partial(steps, sigma), self.settings.repeats) for sigma in batches]
        seconds, batch = statistics.mean(times), len(batches[0])
        memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if DEVICE.type == "cuda" else ""
        rate = macs * batch / seconds
        print(
            f"| {name} | {batch} | {batch / seconds:.2f} | {rate / 1e9:.0f} | "
            f"{rate / self.rate:.2f} | {memory} |",
            flush=True,
        )
        return seconds

    def stage(self, steps: Steps, name: str, stage: int, batch: int) -> float:
        """Seconds of a batch in a stage."""
        sigma = levels(self.config, [float(k == stage) for k in range(len(self.costs))], batch)
        return self.line(f"{name}, stage {stage + 1}", steps, [sigma], self.costs[stage])

    def mixed(self, steps: Steps, name: str, alone: Sequence[float], batch: int) -> str:
        """Batches with equal shares, whose counts differ from one to the next, against single-stage
        ones; returns a sentence.
        """
        stages = steps.state.denoiser.stages
        batches = [levels(self.config, [1.0] * len(alone), batch, seed) for seed in range(4)]
        counts = [stages.index(sigma).bincount(minlength=len(alone)).tolist() for sigma in batches]
        shares = [sum(column) / (batch * len(batches)) for column in zip(*counts, strict=True)]
        macs, apart = (
            sum(s * value for s, value in zip(shares, values, strict=True))
            for values in (self.costs, alone)
        )
        together = self.line(f"{name}, mixed {' '.join(map(str, counts))}", steps, batches, macs)
        return (
            f"{name}, {batch}: mixed batches against single-stage ones in the same shares: "
            f"{together / apart - 1:+.1%} time"
        )

    def twin(self, name: str, compiled: bool) -> None:
        """The unified twin."""
        config = replace(self.config, model=unified(self.config.model))
        steps, macs = (
            Steps(config, torch.bfloat16, compiled),
            stage_costs(config.model)[0].training_macs,
        )
        for batch in self.settings.batch_sizes:
            self.line(
                name, steps, [SCHEDULES[config.model.schedule].sigma(0.5).expand(batch)], macs
            )

    def network(self, name: str, compiled: bool) -> Iterator[str]:
        """Every stage, mixed batches and the twin, in bf16, and for comparison a stage in float32;
        yields sentences.
        """
        steps, middle = Steps(self.config, torch.bfloat16, compiled), {}
        for batch in self.settings.batch_sizes:
            times = [self.stage(steps, name, stage, batch) for stage in range(len(self.costs))]
            middle[batch] = times[1]
            yield self.mixed(steps, name, times, batch)
            share = convolution_share(steps, levels(self.config, [0.0, 1.0, 0.0], batch))
            reached = self.costs[1] * batch / (share * times[1]) / self.rate
            text = f"convolutions take {share:.0%} of stage 2"
            yield f"{name}, {batch}: {text} and reach {reached:.2f} of the best one's rate"
        del steps
        self.twin(f"{name}, unified twin", compiled)
        if not compiled:
            steps, batch = Steps(self.config, torch.float32), self.settings.batch_sizes[0]
            ratio = self.stage(steps, "float32", 1, batch) / middle[batch]
            yield f"float32 against bf16, stage 2, {batch}: {ratio:.2f} times the time"


def main(settings: Settings) -> None:
    """Measures and prints."""
    table = Table(settings)
    where = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else f"{platform.processor()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}, torch {torch.__version__}; {settings.preset}, medians of {settings.repeats}")
    print(f"bf16 convolution: {table.rate / 1e9:.0f} GMAC/s\n")
    print(
        "| steps | batch | images/s | GMAC/s | of the convolution's rate | peak memory, GB "
        "|\n|---|---|---|---|---|---|"
    )
    sentences = list(table.network("bf16", compiled=False))
    if settings.compile:
        sentences += table.network("bf16, compiled", compiled=True)
    print("\n" + "\n".join(sentences))


if __name__ == "__main__":
    main(tyro.cli(Settings))
