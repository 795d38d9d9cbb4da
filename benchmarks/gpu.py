"""What a GPU does with this package, in minutes, as one report.

    python benchmarks/gpu.py [--out gpu.md] [--tiny] [--minutes 9]

Equality of the CPU and the GPU; images a second, the rate compared to the machine's best
convolution, and peak memory of the paper's networks, in both memory formats, in bf16 and TF32,
eager and compiled; waits of the host in a step; mixed against single-stage batches; clustering,
sampling and feature extraction. A part that fails is reported with its error, and parts are left
out once the time is over. ``--tiny`` runs everything in seconds on the CPU, with settings that say
nothing about speed.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import tyro
from machine import DEVICE, convolution_rate, device_name, median_seconds, seconds_of
from train import Steps, configuration, levels, one_hot, peak_memory

from multistage_diffusion.clustering import ClusterOptions, agreement
from multistage_diffusion.cost import mean_training_macs, stage_costs
from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import set_compute_dtype
from multistage_diffusion.evaluation.features import find_extractor
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.sampling import SampleOptions, generate
from multistage_diffusion.schedule import VP
from multistage_diffusion.training.precision import rounding_of
from multistage_diffusion.training.state import State

Rows = Iterator[str]
FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    out: Path = Path("gpu.md")
    """The report."""
    tiny: bool = False
    """Settings for a test on the CPU."""
    minutes: float = 9.0
    """After which no further part begins."""

    @property
    def networks(self) -> list[tuple[str, int]]:
        """Presets and batches."""
        names = ["edm-cifar10", "edm-cifar10-unified", "dpm-cifar10", "ldm-256"]
        paper = list(product(names, (128, 512)))
        return [("digits", 8)] if self.tiny else paper

    @property
    def repeats(self) -> int:
        """Timings of which a median is taken."""
        return 1 if self.tiny else 5


def random_images(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Bytes, uint8 ``[count, *shape]``, the same every time."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=source)


def equality(_settings: Settings) -> Rows:
    """Largest differences between the CPU and the GPU, in float32, relative to the largest value.

    Of an evaluation, of the weights after three steps, and of pixels of samples.
    """
    config = configuration("digits")
    results = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        denoiser = set_compute_dtype(build_denoiser(config.model), torch.float32).eval()
        denoiser = denoiser.to(device)
        y, noise = torch.randn(2, 6, *config.model.shape)
        y, noise = y.to(device), noise.to(device)
        sigma = torch.tensor([0.1, 0.2, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
        with torch.no_grad():
            output = denoiser(y, sigma).cpu()
        state = State.initial(denoiser, config.training)
        for _ in range(3):
            state.optimizer.zero_grad()
            denoiser.loss(y, sigma, noise).mean().backward()
            state.optimizer.step()
        weights = torch.cat([p.detach().flatten().cpu() for p in denoiser.parameters()])
        model = Model(denoiser, config.model, 0)
        samples = generate(model, SampleOptions(steps=4), range(2), device).float()
        results.append((output, weights, samples))
    yield "| | largest difference | allowed |\n|---|---|---|"
    names = ("an evaluation", "weights after three steps", "pixels of samples")
    for name, allowed, one, other in zip(names, (1e-4, 1e-3, 2e-2), *results, strict=True):
        found = float((one - other).abs().max() / one.abs().max())
        yield f"| {name} | {found:.1e} | {allowed:.0e}{'' if found <= allowed else ' EXCEEDED'} |"


def training(settings: Settings) -> Rows:
    """Training steps of the networks, in every way."""
    best = convolution_rate(settings.repeats)
    yield f"bf16 convolution: {best / 1e9:.0f} GMAC/s\n"
    yield "| network | batch | how | images/s | of the convolution's rate | peak memory, GB |"
    yield "|---|---|---|---|---|---|"
    ways = list(product(("bf16", "tf32"), FORMATS, (False, not settings.tiny)))
    for (name, batch), (precision, layout, compiled) in product(settings.networks, ways):
        if compiled and (batch > 128 or layout != "channels-last" or precision != "bf16"):
            continue
        how = f"{precision}, {layout}{', compiled' if compiled else ''}"
        try:
            speed, rate = _speed(settings, name, batch, precision, layout, compiled)
            rates = f"{speed:.1f} | {rate / best:.2f}"
            yield f"| {name} | {batch} | {how} | {rates} | {peak_memory()} |"
        except torch.OutOfMemoryError:
            yield f"| {name} | {batch} | {how} | out of memory | | |"


def _speed(
    settings: Settings, name: str, batch: int, precision: str, layout: str, compiled: bool
) -> tuple[float, float]:
    """Images and multiply-accumulates a second of mixed batches with equal shares."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    config = configuration(name)
    costs = stage_costs(config.model)
    shares = [1 / len(costs)] * len(costs)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    with rounding_of("bf16" if precision == "bf16" else "tf32"):
        steps = Steps(config, dtype, compiled)
        steps.memory_format = FORMATS[layout]
        for parameter in steps.state.denoiser.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=FORMATS[layout])
        sigma = levels(config, shares, batch)
        seconds = median_seconds(lambda: steps(sigma), settings.repeats)
    return batch / seconds, batch / seconds * mean_training_macs(costs, shares)


def waits(settings: Settings) -> Rows:
    """Calls in which the host waits for the GPU, in a step; the goal is none."""
    name, batch = settings.networks[0]
    config = configuration(name)
    steps = Steps(config, torch.bfloat16)
    sigma = levels(config, [1.0] * (len(config.model.boundaries) + 1), batch)
    steps(sigma)
    with torch.profiler.profile(acc_events=True) as profile:
        steps(sigma)
    found = {e.key: e.count for e in profile.key_averages() if "Synchronize" in e.key}
    yield f"{name}: {sum(found.values())} waits {found or ''}"


def stages(settings: Settings) -> Rows:
    """Mixed batches against batches of one stage with the same shares."""
    name, batch = settings.networks[0]
    config = configuration(name)
    steps = Steps(config, torch.bfloat16)
    count = len(config.model.boundaries) + 1

    def seconds(shares: list[float]) -> float:
        sigma = levels(config, shares, batch)
        return median_seconds(lambda: steps(sigma), settings.repeats)

    alone = sum(seconds(one_hot(stage, count)) for stage in range(count)) / count
    mixed = seconds([1.0] * count)
    yield f"{name}, batches of {batch}: mixed {mixed:.4f} s, of one stage {alone:.4f} s on average"


def clustering(settings: Settings) -> Rows:
    """Agreement of 50,000 images of the size of CIFAR-10 with 256 pairs on 33 levels."""
    count, pairs = (60, 4) if settings.tiny else (50_000, 256)
    images = Images(random_images(count, (3, 32, 32)))
    options = ClusterOptions(pairs=pairs)
    seconds = seconds_of(lambda: list(agreement(images, VP().levels(options.levels), options)))
    yield f"{count} images, {pairs} pairs, 33 levels: {seconds:.1f} s"


def sampling(settings: Settings) -> Rows:
    """Samples of an untrained network with 18 steps of Heun's method."""
    name, batch = settings.networks[0]
    config = configuration(name)
    denoiser = build_denoiser(config.model).eval()
    denoiser.dtype = torch.bfloat16
    model = Model(denoiser, config.model, 0)
    options = SampleOptions(steps=2 if settings.tiny else 18)
    generate(model, options, range(2), DEVICE)
    seconds = seconds_of(lambda: generate(model, options, range(batch), DEVICE))
    yield f"{name}, bf16, {options.steps} steps: {batch / seconds:.1f} images/s"


def features(settings: Settings) -> Rows:
    """Features of EfficientNet-Lite0."""
    name = "pixels" if settings.tiny else "efficientnet-lite0"
    images = random_images(8 if settings.tiny else 5000, (3, 32, 32))
    extractor = find_extractor(name)
    extractor.extract(images[:8], "warm-up")
    seconds = seconds_of(lambda: extractor.extract(images, "random"))
    yield f"{name}: {len(images) / seconds:.0f} images/s"


PARTS: dict[str, Callable[[Settings], Rows]] = {
    "CPU and GPU": equality,
    "Waits": waits,
    "Sampling": sampling,
    "Clustering": clustering,
    "Features": features,
    "Mixed batches": stages,
    "Training": training,
}


def part(settings: Settings, measure: Callable[[Settings], Rows], end: float) -> Rows:
    """The lines of a part, or of its error, until the time is over."""
    try:
        for row in measure(settings):
            yield row
            if time.monotonic() > end:
                yield "\nThe time was over here."
                return
    except Exception:  # the other parts are wanted whatever happens in this one
        yield f"```\n{traceback.format_exc()}```"


def main(settings: Settings) -> None:
    """Measures, prints, and writes the report after every line."""
    end = time.monotonic() + 60 * settings.minutes
    lines = [f"# {device_name()}, torch {torch.__version__}"]
    for title, measure in PARTS.items():
        lines.append(f"\n## {title}\n")
        for line in part(settings, measure, end):
            print(line, flush=True)
            lines.append(line)
            settings.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
