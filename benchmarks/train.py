"""Speed of training steps: forward, backward, Adam and averaged weights.

    python benchmarks/train.py [--preset edm-cifar10] [--batch-sizes 16] [--repeats 3] [--compile]

Everything is measured in one run, on the GPU if there is one: steps of each stage and of the
unified twin, mixed batches and single-stage batches with the same shares, bf16 and float32, eager
and compiled, and the machine's own rate for a bf16 3x3 convolution of 256 channels at 32x32, the
best of several batch sizes and memory formats. The script prints medians as a table in Markdown, on
a GPU with the peak memory that torch allocated; the report is ``train.md``.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import tyro
from machine import DEVICE, convolution_rate, device_name, median_seconds, seconds_of

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.compilation import compile_parts
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.distributed.gradients import part_norms
from multistage_diffusion.training.state import State

MIXED_BATCHES = 4


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "edm-cifar10"
    batch_sizes: tuple[int, ...] = (16,)
    repeats: int = 3
    """Timings of which the median is taken, after one that is not counted."""
    compile: bool = False
    """Also measure compiled networks, which takes some minutes at the start."""


def configuration(name: str, shape: tuple[int, int, int] | None = None) -> RunConfig:
    """A run of a preset on images of a shape, or of its usual one."""
    preset = PRESETS[name]
    model = preset_model(preset, choose_stages(preset, None), shape)
    data = DataInfo(path="", fingerprint="", images=0)
    return RunConfig(model=model, training=preset.training, data=data)


class Steps:
    """A network and the steps of its training."""

    def __init__(self, config: RunConfig, dtype: torch.dtype, compiled: bool = False) -> None:
        denoiser = set_compute_dtype(build_denoiser(config.model).to(DEVICE), dtype)
        self.state = State.initial(denoiser, config.training)
        self.shape = config.model.shape
        self.memory_format = MEMORY_FORMAT
        if compiled:
            compile_parts(denoiser.network)

    def __call__(self, sigma: torch.Tensor) -> None:
        """Trains on random images at noise levels ``[B]``."""
        y = self._random_images(len(sigma))
        noise = self._random_images(len(sigma))
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(y, sigma, noise).mean().backward()
        part_norms(self.state.modules())
        self.state.optimizer.step()
        self.state.count([1] * len(self.state.denoiser.stages))

    def _random_images(self, count: int) -> torch.Tensor:
        images = torch.randn(count, *self.shape, device=DEVICE)
        return images.to(memory_format=self.memory_format)


def levels(config: RunConfig, shares: Sequence[float], batch: int, seed: int = 0) -> torch.Tensor:
    """Noise levels of a batch whose stages have these shares: float64 ``[batch]``."""
    positive = tuple(share or 1e-12 for share in shares)
    levels = Levels.of(replace_settings(config, shares=positive))
    return levels.draw(batch, torch.Generator().manual_seed(seed))


def convolution_share(steps: Steps, sigma: torch.Tensor) -> float:
    """Share of a step's time that convolutions and their gradients take."""
    with torch.profiler.profile(acc_events=True) as profile:
        seconds_of(lambda: steps(sigma))
    times: Counter[bool] = Counter()
    for event in profile.key_averages():
        on_gpu = DEVICE.type == "cuda"
        time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        times["convolution" in event.key] += time
    return times[True] / times.total()


class Table:
    """Measures, and prints line by line."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.config = configuration(settings.preset)
        self.costs = [cost.training_macs for cost in stage_costs(self.config.model)]
        self.rate = convolution_rate(settings.repeats)

    def line(self, name: str, steps: Steps, batches: Sequence[torch.Tensor], macs: float) -> float:
        """Measures and prints a line of the table.

        Args:
            name: the name of the line.
            steps: the network.
            batches: the noise levels of each batch, all of the same size.
            macs: multiply-accumulates of an image, forward and backward.

        Returns:
            The mean over the batches of the median seconds of a step.
        """
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        repeats = self.settings.repeats
        seconds = statistics.mean(median_seconds(partial(steps, s), repeats) for s in batches)
        speed = len(batches[0]) / seconds
        rate = macs * speed
        rates = f"{speed:.2f} | {rate / 1e9:.0f} | {rate / self.rate:.2f}"
        print(f"| {name} | {len(batches[0])} | {rates} | {peak_memory()} |", flush=True)
        return seconds

    def stage(self, steps: Steps, name: str, stage: int, batch: int) -> float:
        """Seconds of a step whose images are all in one stage."""
        sigma = levels(self.config, one_hot(stage, len(self.costs)), batch)
        return self.line(f"{name}, stage {stage + 1}", steps, [sigma], self.costs[stage])

    def mixed(self, steps: Steps, name: str, alone: Sequence[float], batch: int) -> str:
        """Mixed batches with equal shares, whose counts differ from one batch to the next.

        Args:
            steps: the network.
            name: its name.
            alone: seconds of a step of each stage.
            batch: images in a batch.

        Returns:
            A sentence that compares them to single-stage batches with the same shares.
        """
        equal = [1.0] * len(alone)
        batches = [levels(self.config, equal, batch, seed) for seed in range(MIXED_BATCHES)]
        counts = stage_counts(steps, batches)
        shares = [sum(column) / (batch * len(batches)) for column in zip(*counts, strict=True)]
        title = f"{name}, mixed {' '.join(map(str, counts))}"
        together = self.line(title, steps, batches, weighted_sum(shares, self.costs))
        change = together / weighted_sum(shares, alone) - 1
        compared = "mixed batches against single-stage ones with the same shares"
        return f"{name}, {batch}: {compared}: {change:+.1%} time"

    def twin(self, name: str, compiled: bool) -> None:
        """The unified twin."""
        config = replace(self.config, model=unified(self.config.model))
        steps = Steps(config, torch.bfloat16, compiled)
        macs = stage_costs(config.model)[0].training_macs
        middle = SCHEDULES[config.model.schedule].sigma(0.5)
        for batch in self.settings.batch_sizes:
            self.line(name, steps, [middle.expand(batch)], macs)

    def network(self, name: str, compiled: bool) -> Iterator[str]:
        """Every stage, mixed batches and the unified twin in bf16, and stage 2 in float32.

        Yields sentences.
        """
        steps = Steps(self.config, torch.bfloat16, compiled)
        seconds = {}
        for batch in self.settings.batch_sizes:
            times = [self.stage(steps, name, stage, batch) for stage in range(len(self.costs))]
            seconds[batch] = times[1]
            yield self.mixed(steps, name, times, batch)
            yield self.convolutions(steps, name, times[1], batch)
        del steps
        self.twin(f"{name}, unified twin", compiled)
        if not compiled:
            batch = self.settings.batch_sizes[0]
            yield self.float32(seconds[batch], batch)

    def convolutions(self, steps: Steps, name: str, seconds: float, batch: int) -> str:
        """A sentence about the convolutions of stage 2, a step of which takes ``seconds``."""
        sigma = levels(self.config, one_hot(1, len(self.costs)), batch)
        share = convolution_share(steps, sigma)
        reached = self.costs[1] * batch / (share * seconds) / self.rate
        text = f"convolutions take {share:.0%} of stage 2"
        return f"{name}, {batch}: {text} and reach {reached:.2f} of the best one's rate"

    def float32(self, seconds: float, batch: int) -> str:
        """A sentence about stage 2 in float32; a step of it in bf16 takes ``seconds``."""
        steps = Steps(self.config, torch.float32)
        ratio = self.stage(steps, "float32", 1, batch) / seconds
        return f"float32 against bf16, stage 2, {batch}: {ratio:.2f} times the time"


def one_hot(index: int, count: int) -> list[float]:
    """1 at ``index``, 0 elsewhere."""
    return [float(position == index) for position in range(count)]


def weighted_sum(shares: Sequence[float], values: Sequence[float]) -> float:
    """The sum of values times shares."""
    return sum(share * value for share, value in zip(shares, values, strict=True))


def stage_counts(steps: Steps, batches: Sequence[torch.Tensor]) -> list[list[int]]:
    """Images of each stage in batches with these noise levels."""
    stages = steps.state.denoiser.stages
    indices = [stages.index(sigma) for sigma in batches]
    return [index.bincount(minlength=len(stages)).tolist() for index in indices]


def peak_memory() -> str:
    """Peak memory that torch allocated on the GPU, in GB; empty without one."""
    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if DEVICE.type == "cuda" else ""


def main(settings: Settings) -> None:
    """Measures and prints."""
    table = Table(settings)
    where = f"{device_name()}, torch {torch.__version__}"
    print(f"{where}; {settings.preset}, medians of {settings.repeats}")
    print(f"bf16 convolution: {table.rate / 1e9:.0f} GMAC/s\n")
    rates = "images/s | GMAC/s | of the convolution's rate"
    print(f"| steps | batch | {rates} | peak memory, GB |\n|---|---|---|---|---|---|")
    sentences = list(table.network("bf16", compiled=False))
    if settings.compile:
        sentences += table.network("bf16, compiled", compiled=True)
    print("\n" + "\n".join(sentences))


if __name__ == "__main__":
    main(tyro.cli(Settings))
