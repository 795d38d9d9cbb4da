"""How much of the exchange of gradients is hidden behind the backward pass.

    python benchmarks/distributed.py [--preset small] [--batch 16] [--processes 4] [--ratio 0.5]
    torchrun --nproc-per-node 2 benchmarks/distributed.py

Between the processes is a link with a limited bandwidth: a transfer is over when all transfers
before it are over and its bytes have had their time, ``2 (n - 1) / n`` of them as in a ring. The
bandwidth is such that the exchange of a step takes ``ratio`` of its forward and backward pass. With
torchrun the sums are really computed, by gloo; in a single process only the link is there. Steps
that send gradients while they are computed and steps that send them afterwards take turns; medians
are printed as a table in Markdown, by rank 0.

The report is ``distributed.md``; ``engines.py`` compares whole steps with torch's own engines.
"""

import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
import tyro
from machine import DEVICE, device_name, seconds_of, synchronize

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.sharing import share_out
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.distributed.gradients import GradientReducer


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "small"
    batch: int = 16
    """Images of each process."""
    processes: int = 4
    """Processes, where only the link is there."""
    ratio: float = 0.5
    """Time of the exchange as a multiple of that of forward and backward pass."""
    repeats: int = 7
    bucket: int = 1 << 17
    """Numbers that are sent at a time; the paper's networks use 32 times as many."""


class Link:
    """A link with a limited bandwidth, behind which gloo may compute the sums."""

    def __init__(self) -> None:
        self.bytes_per_second = float("inf")
        self.free_at = 0.0
        self.sent = 0

    def begin(self, value: torch.Tensor) -> "Transfer":
        """Begins to send a tensor."""
        size = distributed.world_size()
        amount = 2 * (size - 1) / size * value.nbytes
        self.sent += value.nbytes
        self.free_at = max(self.free_at, time.perf_counter()) + amount / self.bytes_per_second
        work = dist.all_reduce(value, async_op=True) if dist.is_initialized() else None
        return Transfer(work, self.free_at)


@dataclass
class Transfer:
    """What has been begun."""

    work: distributed.Work | None
    over_at: float

    def wait(self) -> None:
        """Waits until it is over."""
        if self.work is not None:
            self.work.wait()
        time.sleep(max(0.0, self.over_at - time.perf_counter()))


class Step:
    """The forward and backward pass of this process's part of a batch, and the exchange."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(0)  # the same weights on all ranks
        preset = PRESETS[settings.preset]
        model = preset_model(preset, choose_stages(preset, None))
        denoiser = set_compute_dtype(build_denoiser(model).to(DEVICE), torch.float32)
        config = RunConfig(
            model=model,
            training=preset.training,
            data=DataInfo(path="", fingerprint="", images=0),
        )
        self.config = config
        count = settings.batch * distributed.world_size()
        sigma = Levels.of(config).draw(count, torch.Generator().manual_seed(0))
        shared = share_out(torch.ones(count), distributed.world_size(), 1)
        self.sigma = sigma[shared[distributed.rank()][0]]
        y = torch.randn(settings.batch, *model.shape, device=DEVICE)
        self.y = y.to(memory_format=MEMORY_FORMAT)
        self.denoiser = denoiser
        self.reducer = GradientReducer(denoiser.parameters(), settings.bucket)

    def compute(self) -> None:
        """Forward and backward pass."""
        self.denoiser.zero_grad()
        self.denoiser.loss(self.y, self.sigma, self.y).mean().backward()
        synchronize()

    def __call__(self, overlapped: bool) -> float:
        """A step; returns the seconds from the end of the backward pass to all sums."""
        with self.reducer.overlap("all", "own") if overlapped else nullcontext():
            self.compute()
        return seconds_of(partial(self.reducer.reduce, "all"))


def connect(settings: Settings) -> tuple[Step, Link]:
    """A step whose sums go through a link that is not limited yet."""
    if "RANK" in os.environ:
        distributed.init_process_group(DEVICE)
    else:
        distributed.world_size = lambda: settings.processes
        distributed.all_reduce_max = lambda value: value
    link = Link()
    distributed.begin_all_reduce_sum = link.begin
    return Step(settings), link


def limit(settings: Settings, step: Step, link: Link) -> tuple[float, float]:
    """Limits the link; returns the seconds of forward and backward pass, and of the exchange."""
    step(overlapped=True)  # finds out which gradients there are
    link.sent = 0
    step(overlapped=True)
    size = distributed.world_size()
    amount = 2 * (size - 1) / size * link.sent
    seconds = statistics.median(seconds_of(step.compute) for _ in range(settings.repeats))
    link.bytes_per_second = amount / (settings.ratio * seconds)
    return seconds, settings.ratio * seconds


def main(settings: Settings) -> None:
    """Measures and prints."""
    step, link = connect(settings)
    seconds, exchange = limit(settings, step, link)
    exposed: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(settings.repeats):
        for overlapped, found in exposed.items():
            found.append(step(overlapped))
    if distributed.rank():
        return
    kind = "gloo" if dist.is_initialized() else "link only"
    print(f"{device_name()}, torch {torch.__version__}; {settings}")
    print("| processes | forward and backward | exchange | exposed: afterwards | overlapped |")
    print("|---|---|---|---|---|")
    after, during = (statistics.median(exposed[key]) for key in (False, True))
    shares = f"{after:.3f} s ({after / exchange:.0%}) | {during:.3f} s ({during / exchange:.0%})"
    size = distributed.world_size()
    print(f"| {size} ({kind}) | {seconds:.3f} s | {exchange:.3f} s | {shares} |")


if __name__ == "__main__":
    main(tyro.cli(Settings))
