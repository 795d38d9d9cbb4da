"""How much of the exchange of gradients is hidden behind the backward pass.

    python benchmarks/distributed.py [--preset small] [--batch 16] [--processes 4] [--ratio 0.5]
    torchrun --nproc-per-node 2 benchmarks/distributed.py
    torchrun --nproc-per-node 2 benchmarks/distributed.py --engines [--single-stage]

Between the processes is a link with a limited bandwidth: a transfer is over when all transfers
before it are over and its bytes have had their time, ``2 (n - 1) / n`` of them as in a ring. The
bandwidth is such that the exchange of a step takes ``ratio`` of its forward and backward pass. With
torchrun the sums are really computed, by gloo; in a single process only the link is there. Steps
that send gradients while they are computed and steps that send them afterwards take turns; medians
are printed as a table in Markdown, by rank 0.

With ``--engines``, whole steps (forward, backward and the exchange, without and with the link) of
our reducer and of DistributedDataParallel take turns on batches as training draws them. It is told
to find unused parameters, or all decoders are evaluated. The report is ``distributed.md``.
"""

import copy
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
import tyro
from machine import DEVICE, device_name, seconds_of, synchronize
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from multistage_diffusion import distributed
from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs
from multistage_diffusion.denoiser import (
    NetworkDenoiser,
    fastest_memory_format,
    set_compute_dtype,
)
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
    engines: bool = False
    """Compare with torch's own DistributedDataParallel."""
    single_stage: bool = False
    """Compare on batches of one stage each."""


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
        memory_format = fastest_memory_format(denoiser)
        y = torch.randn(settings.batch, *model.shape, device=DEVICE)
        self.y = y.to(memory_format=memory_format)
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


class Loss(nn.Module):
    """The mean loss, as a module."""

    def __init__(self, denoiser: NetworkDenoiser, every_decoder: bool) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.forced = range(len(denoiser.stages)) if every_decoder else ()

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """The mean loss of images ``[B, C, H, W]`` at noise levels ``[B]``."""
        return self.denoiser.loss(y, sigma, y, force_stages=self.forced).mean()


Engine = Callable[[Tensor], None]


class Engines:
    """Steps of the same weights on the same batches, with different exchanges of gradients."""

    def __init__(self, settings: Settings, step: Step, link: Link) -> None:
        self.settings = settings
        self.step = step
        self.link = link
        model, training = step.config.model, step.config.training
        if settings.single_stage:
            training = replace_settings(training, batches="single-stage")
        self.levels = Levels.of(RunConfig(model=model, training=training, data=step.config.data))
        self.costs = [cost.training_macs for cost in stage_costs(model)]
        self.y = step.y.repeat(distributed.world_size(), 1, 1, 1)
        self.denoisers = {name: copy.deepcopy(step.denoiser) for name in ("ours", "find", "all")}

    def engines(self) -> Mapping[str, Engine]:
        """The engines by name."""
        finds = self._ddp(Loss(self.denoisers["find"], every_decoder=False), finds_unused=True)
        evaluates = self._ddp(Loss(self.denoisers["all"], every_decoder=True), finds_unused=False)
        return {
            "ours": self._ours(self.denoisers["ours"]),
            "DDP, finds unused parameters": finds,
            "DDP, all decoders evaluated": evaluates,
        }

    def _ours(self, denoiser: NetworkDenoiser) -> Engine:
        reducer = GradientReducer(denoiser.parameters(), self.settings.bucket)
        loss = Loss(denoiser, every_decoder=False)

        def step(sigma: Tensor) -> None:
            used = frozenset(denoiser.stages.index(sigma).tolist())
            own = sigma[self.own(sigma)]
            denoiser.zero_grad()
            with reducer.overlap(used, frozenset(denoiser.stages.index(own).tolist())):
                loss(self.y[: len(own)], own).backward()
            reducer.reduce(used)

        return step

    def _ddp(self, loss: Loss, finds_unused: bool) -> Engine:
        megabytes = self.settings.bucket * 4 / 2**20
        engine = DistributedDataParallel(
            loss,
            bucket_cap_mb=megabytes,
            find_unused_parameters=finds_unused,
            gradient_as_bucket_view=True,
        )
        engine.register_comm_hook(self.link, _through_link)

        def step(sigma: Tensor) -> None:
            own = sigma[self.own(sigma)]
            engine.zero_grad()
            engine(self.y[: len(own)], own).backward()

        return step

    def own(self, sigma: Tensor) -> Tensor:
        """The samples of this rank."""
        costs = torch.tensor(self.costs, dtype=torch.float64)
        shared = share_out(
            costs[self.step.denoiser.stages.index(sigma)], distributed.world_size(), 1
        )
        return shared[distributed.rank()][0]

    def batch(self, number: int) -> Tensor:
        """The levels of a batch."""
        count = self.settings.batch * distributed.world_size()
        return self.levels.draw(count, torch.Generator().manual_seed(number))

    def seconds(self, engines: Mapping[str, Engine], first: int) -> dict[str, float]:
        """Median seconds of a step of each engine, taken in turns on the same batches."""
        found: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(first, first + self.settings.repeats):
            sigma = self.batch(number)
            for name, engine in engines.items():
                distributed.barrier()
                found[name].append(seconds_of(partial(engine, sigma)))
        return {name: statistics.median(times) for name, times in found.items()}


def _through_link(
    link: Link,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Sums a bucket of DistributedDataParallel over the ranks, as slowly as the link allows."""
    transfer = link.begin(bucket.buffer())
    assert transfer.work is not None

    def finish(work: torch.futures.Future[list[Tensor]]) -> Tensor:
        time.sleep(max(0.0, transfer.over_at - time.perf_counter()))
        return work.value()[0]

    return transfer.work.get_future().then(finish)  # type: ignore[attr-defined]


def compare(settings: Settings, step: Step, link: Link, bytes_per_second: float) -> None:
    """Measures the engines without and with the link, and prints."""
    link.bytes_per_second = float("inf")
    compared = Engines(settings, step, link)
    engines = compared.engines()
    compared.seconds(engines, 1000)  # finds out which gradients there are
    free = compared.seconds(engines, 0)
    link.bytes_per_second = bytes_per_second
    limited = compared.seconds(engines, 0)
    if distributed.rank():
        return
    print("| engine | step, gloo alone | of ours | step with the link | of ours |")
    print("|---|---|---|---|---|")
    for name in engines:
        columns = [(times[name], times[name] / times["ours"]) for times in (free, limited)]
        print(f"| {name} | " + " | ".join(f"{t:.3f} s | {r:.2f}" for t, r in columns) + " |")
    print(f"gradients differ by at most {difference(compared.denoisers):.1e}")


def difference(denoisers: Mapping[str, NetworkDenoiser]) -> float:
    """The largest difference of a gradient from ours, as a share of our largest one."""
    ours, *others = ([p.grad for p in d.parameters()] for d in denoisers.values())
    largest = max(float(g.abs().max()) for g in ours if g is not None)
    gaps = [
        float((a - b).abs().max())
        for other in others
        for a, b in zip(ours, other, strict=True)
        if a is not None and b is not None
    ]
    return max(gaps) / largest


def main(settings: Settings) -> None:
    """Measures and prints."""
    if "RANK" in os.environ:
        distributed.init_process_group(DEVICE)
    else:
        distributed.world_size = lambda: settings.processes
        distributed.all_reduce_max = lambda value: value
    link = Link()
    distributed.begin_all_reduce_sum = link.begin
    step = Step(settings)
    step(overlapped=True)  # finds out which gradients there are
    link.sent = 0
    step(overlapped=True)
    size = distributed.world_size()
    amount = 2 * (size - 1) / size * link.sent
    seconds = statistics.median(seconds_of(step.compute) for _ in range(settings.repeats))
    exchange = settings.ratio * seconds
    link.bytes_per_second = amount / exchange
    if settings.engines:
        return compare(settings, step, link, link.bytes_per_second)
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
    print(f"| {size} ({kind}) | {seconds:.3f} s | {exchange:.3f} s | {shares} |")


if __name__ == "__main__":
    main(tyro.cli(Settings))
