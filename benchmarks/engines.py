"""Steps of our exchange of gradients and of torch's own engines, in turns on the same batches.

    torchrun --nproc-per-node 2 benchmarks/engines.py [--single-stage] [--batch 8] [--repeats 9]

Whole steps (forward, backward and the exchange) on batches as training draws them:

- ours;
- DistributedDataParallel, which is told to find unused parameters, or all decoders are evaluated;
- FSDP2, whose ranks send zeros for parameters that they did not use. As ranks must agree on what
  they gather, the encoder is one group, and the decoders are gathered and reduced together.

They are timed over gloo alone and, except for FSDP2, over the limited link of ``distributed.py``
too. Medians are printed as a table in Markdown, by rank 0, with the largest difference of gradients
from ours. The report is ``distributed.md``.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import distributed as exchange
import torch
import torch.distributed as dist
import tyro
from distributed import Link, Step
from machine import device_name, seconds_of
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from multistage_diffusion import distributed
from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.sharing import share_out
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.distributed.gradients import GradientReducer
from multistage_diffusion.training.distributed.sharding import whole

ZEROS = "FSDP2, zeros for unused parameters"


@dataclass(frozen=True)
class Settings(exchange.Settings):
    """What is measured."""

    single_stage: bool = False
    """Batches of one stage each."""


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
        self.denoisers = {
            name: copy.deepcopy(step.denoiser) for name in ("ours", "find", "all", "zeros")
        }

    def engines(self) -> Mapping[str, Engine]:
        """The engines by name."""
        finds = self._ddp(Loss(self.denoisers["find"], every_decoder=False), finds_unused=True)
        evaluates = self._ddp(Loss(self.denoisers["all"], every_decoder=True), finds_unused=False)
        return {
            "ours": self._ours(self.denoisers["ours"]),
            "DDP, finds unused parameters": finds,
            "DDP, all decoders evaluated": evaluates,
            ZEROS: self._fsdp(self.denoisers["zeros"]),
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

    def _fsdp(self, denoiser: NetworkDenoiser) -> Engine:
        for parameter in denoiser.network.parameters():
            parameter.data = parameter.data.contiguous()
        for module in (*denoiser.network.encoders, denoiser.network):
            sharded = fully_shard(module, reshard_after_forward=False)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_reduce_scatter_unused_params(True)
        loss = Loss(denoiser, every_decoder=False)

        def step(sigma: Tensor) -> None:
            own = sigma[self.own(sigma)]
            denoiser.zero_grad()
            loss(self.y[: len(own)], own).backward()

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
    limited = compared.seconds({k: v for k, v in engines.items() if k != ZEROS}, 0)
    gap = difference(compared.denoisers)
    if distributed.rank():
        return
    print(f"{device_name()}, torch {torch.__version__}; {settings}")
    print("| engine | step, gloo alone | of ours | step with the link | of ours |")
    print("|---|---|---|---|---|")
    for name in engines:
        columns = [_column(times, name) for times in (free, limited)]
        print(f"| {name} | " + " | ".join(columns) + " |")
    print(f"gradients differ by at most {gap:.1e}")


def _column(times: Mapping[str, float], name: str) -> str:
    if name not in times:
        return "- | -"
    return f"{times[name]:.3f} s | {times[name] / times['ours']:.2f}"


def difference(denoisers: Mapping[str, NetworkDenoiser]) -> float:
    """The largest difference of a gradient from ours, as a share of our largest one."""
    ours, *others = (_gradients(denoiser) for denoiser in denoisers.values())
    largest = max(float(g.abs().max()) for g in ours if g is not None)
    gaps = [
        float((a - b).abs().max())
        for other in others
        for a, b in zip(ours, other, strict=True)
        if a is not None and b is not None
    ]
    return max(gaps) / largest


def _gradients(denoiser: NetworkDenoiser) -> list[Tensor | None]:
    return [None if p.grad is None else whole(p.grad) for p in denoiser.parameters()]


def main(settings: Settings) -> None:
    """Measures and prints."""
    step, link = exchange.connect(settings)
    exchange.limit(settings, step, link)
    compare(settings, step, link, link.bytes_per_second)


if __name__ == "__main__":
    main(tyro.cli(Settings))
