"""Training steps of this package and of two others, side by side.

    python benchmarks/others.py [--preset edm-cifar10] [--batch-size 16] [--repeats 3]

A step is forward, backward, Adam and averaged weights. Compared are the unified twin of a preset,
diffusers' ``UNet2DModel`` and denoising_diffusion_pytorch's ``Unet``, each with as many
multiply-accumulates as its width allows (see ``closest_width``), on the same images, in bf16 with
float32 weights, with the same fused Adam and the same average. The networks take turns in one
process, on the GPU if there is one, in both memory formats where the library does not choose one;
the faster one counts. The script prints medians as a table in Markdown.

The peak memory of a step is measured in a separate process for each network (``--only``): on a GPU
what torch allocated at most; on a CPU, under Linux, the peak resident memory of the process minus
its resident memory before the network was built.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import tyro
from foreign import FOREIGN, ForeignSteps, closest_width, require_libraries
from machine import DEVICE, convolution_rate, device_name, seconds_of
from train import Steps, configuration

from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.schedule import SCHEDULES

OURS = "multistage-diffusion, unified twin"
MEMORY_FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
Step = Callable[[], None]


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    preset: str = "edm-cifar10"
    batch_size: int = 16
    repeats: int = 3
    """Rounds of which medians are taken, after one that is not counted."""
    only: str = ""
    """Print only the peak memory of this network in bytes; the script calls itself with it."""


@dataclass(frozen=True)
class Candidate:
    """A network that takes part, in one memory format."""

    network: str
    memory_format: str
    training_macs: int
    """Multiply-accumulates of an image, forward and backward."""
    start: Callable[[], Step]
    """Builds the network and returns its training step."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.network}, {self.memory_format}" if self.memory_format else self.network


@dataclass(frozen=True)
class Result:
    """What was measured."""

    candidate: Candidate
    speed: float
    """Images a second."""
    peak: int
    """Bytes."""

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second."""
        return self.speed * self.candidate.training_macs

    def row(self, ours: "Result") -> str:
        """A line of the table."""
        macs = f"{self.candidate.training_macs / 1e9:.2f}"
        speeds = f"{self.speed:.2f} | {self.rate / 1e9:.0f} | {self.rate / ours.rate:.2f}"
        return f"| {self.candidate.name} | {macs} | {speeds} | {self.peak / 1e9:.2f} |"


def our_step(settings: Settings) -> Step:
    """The step of the unified twin, in the memory format that the package chooses."""
    config = configuration(settings.preset)
    steps = Steps(replace(config, model=unified(config.model)), torch.bfloat16)
    sigma = SCHEDULES[config.model.schedule].sigma(0.5)
    return partial(steps, sigma.expand(settings.batch_size))


def candidates(settings: Settings) -> Iterator[Candidate]:
    """All networks; ours is the first."""
    config = unified(configuration(settings.preset).model)
    ours = stage_costs(config)[0]
    yield Candidate(OURS, "", ours.training_macs, partial(our_step, settings))
    for name, build in FOREIGN.items():
        width, training_macs = closest_width(partial(build, config), config.shape, ours.macs)
        network = partial(build, config, width)
        for format_name, memory_format in MEMORY_FORMATS.items():
            arguments = (network, memory_format, config.shape, settings.batch_size)
            start = partial(ForeignSteps, *arguments)
            yield Candidate(f"{name}, width {width}", format_name, training_macs, start)


def alternating_seconds(works: Sequence[Step], repeats: int) -> list[float]:
    """Median seconds of each.

    They take turns, so that whatever else the machine does slows all of them equally.
    """
    rounds = [[seconds_of(work) for work in works] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def resident(field: str) -> int:
    """Bytes of this process in memory under Linux: ``VmRSS`` now, ``VmHWM`` at most.

    ``getrusage`` would not do: its maximum continues from that of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def peak_memory(candidate: Candidate) -> int:
    """Peak memory of training in bytes, with weights and Adam's moments, in this process."""
    before = 0 if DEVICE.type == "cuda" else resident("VmRSS")
    step = candidate.start()
    for _ in range(2):  # the moments exist from the second step on
        step()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - before


def peak_in_new_process(candidate: Candidate, settings: Settings) -> int:
    """The same, measured in a new process."""
    options = asdict(replace(settings, only=candidate.name))
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    command = [sys.executable, __file__, *words]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return int(run.stdout.split()[-1])


def measure(entrants: Sequence[Candidate], settings: Settings) -> list[Result]:
    """Peaks one after the other, then speeds in turns; in the order of the candidates."""
    peaks = [peak_in_new_process(candidate, settings) for candidate in entrants]
    steps = [candidate.start() for candidate in entrants]
    times = alternating_seconds(steps, settings.repeats)
    speeds = [settings.batch_size / seconds for seconds in times]
    return [Result(*values) for values in zip(entrants, speeds, peaks, strict=True)]


def print_table(results: Sequence[Result]) -> None:
    """Prints each network in its faster memory format, then in the other ones.

    The first network is the one that others are compared to.
    """
    rates = "images/s | GMAC/s | of ours"
    print(f"| training step | GMAC/image | {rates} | peak memory, GB |\n|---|---|---|---|---|---|")
    slower = []
    for network in dict.fromkeys(result.candidate.network for result in results):
        own = [result for result in results if result.candidate.network == network]
        best, *rest = sorted(own, key=lambda result: -result.speed)
        print(best.row(results[0]))
        slower += rest
    print()
    for result in slower:
        measured = f"{result.speed:.2f} images/s, peak {result.peak / 1e9:.2f} GB"
        print(f"Slower memory format: {result.candidate.name}, {measured}")


def main(settings: Settings) -> None:
    """Measures and prints."""
    require_libraries()
    entrants = list(candidates(settings))
    if settings.only:
        chosen = next(candidate for candidate in entrants if candidate.name == settings.only)
        print(peak_memory(chosen))
        return
    run = f"{settings.preset}, batch {settings.batch_size}, medians of {settings.repeats}"
    print(f"{device_name()}, torch {torch.__version__}; {run}")
    print(f"bf16 convolution: {convolution_rate(settings.repeats) / 1e9:.0f} GMAC/s\n", flush=True)
    print_table(measure(entrants, settings))


if __name__ == "__main__":
    main(tyro.cli(Settings))
