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

import copy
import math
import statistics
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
import tyro
from machine import DEVICE, device_name, seconds_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train import Steps, configuration, convolution_rate

from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.schedule import SCHEDULES

OURS = "multistage-diffusion, unified twin"
MEMORY_FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
INSTALL = (
    "pip install diffusers einops && pip install --no-deps denoising-diffusion-pytorch ema-pytorch"
)

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


def attention_by_level(shape: Sequence[int], network: NetworkConfig) -> list[bool]:
    """Whether a network attends at each of its levels, largest images first."""
    side = max(shape[1:])
    levels = range(len(network.channel_mult))
    return [side >> level in network.attention_resolutions for level in levels]


def diffusers_unet(config: ModelConfig, width: int) -> nn.Module:
    """A network with levels, blocks, attention, heads, groups and dropout like ours.

    On the way up every block of a level attends, not only one.
    """
    from diffusers import UNet2DModel

    network = config.network
    attends = attention_by_level(config.shape, network)
    down = tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends)
    up = tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends))
    return UNet2DModel(
        sample_size=config.shape[1:],
        in_channels=config.shape[0],
        out_channels=config.shape[0],
        down_block_types=down,
        up_block_types=up,
        block_out_channels=tuple(width * mult for mult in network.channel_mult),
        layers_per_block=network.blocks,
        attention_head_dim=network.head_channels or None,
        norm_num_groups=math.gcd(network.groups, width),
        dropout=network.dropout,
    )


def denoising_diffusion_unet(config: ModelConfig, width: int) -> nn.Module:
    """A network with levels, attention and dropout like ours.

    It always has two blocks in a level, and linear attention where there is no other. Each level
    has the channels that the one above passes on to it.
    """
    from denoising_diffusion_pytorch import Unet

    network = config.network
    return Unet(
        dim=width,
        init_dim=width * network.channel_mult[0],
        dim_mults=(*network.channel_mult[1:], network.channel_mult[-1]),
        channels=config.shape[0],
        full_attn=tuple(attention_by_level(config.shape, network)),
        flash_attn=True,
        dropout=network.dropout,
    )


FOREIGN = {
    "diffusers UNet2DModel": diffusers_unet,
    "denoising_diffusion_pytorch Unet": denoising_diffusion_unet,
}


def predict(network: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    """The network's output, taken out of the record in which diffusers returns it."""
    output = network(x, time)
    return output if isinstance(output, Tensor) else output.sample


class ForeignSteps:
    """A network of another library and the steps of its training.

    As ``train.Steps``, except for the plain loss on the noise.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        memory_format: torch.memory_format,
        shape: Sequence[int],
        batch: int,
    ) -> None:
        network = build().to(DEVICE)
        self.network: nn.Module = network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=True)
        self.y = torch.randn(batch, *shape, device=DEVICE).to(memory_format=memory_format)
        self.noise = torch.randn(batch, *shape, device=DEVICE).to(memory_format=memory_format)
        self.time = torch.randint(1000, (batch,), device=DEVICE)

    def __call__(self) -> None:
        """Trains on a batch."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            predicted = predict(self.network, self.y + self.noise, self.time)
        F.mse_loss(predicted.float(), self.noise).backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        nn.utils.get_total_norm(gradients)  # ours measures it too
        self.optimizer.step()
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        average = list(self.average.parameters())
        torch._foreach_lerp_(average, list(self.network.parameters()), 0.01)


def count_macs(network: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of an image on torch's meta device.

    Returns:
        Those of the forward pass, and those of forward and backward pass together.
    """
    image = torch.empty(1, *shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        output = predict(network, image, torch.empty(1, device="meta"))
        forward = counter.get_total_flops() // 2
        output.sum().backward()
    return forward, counter.get_total_flops() // 2


def closest_width(
    build: Callable[[int], nn.Module], shape: Sequence[int], target: int
) -> tuple[int, int]:
    """The width whose forward pass costs closest to ``target``, among the multiples of 8.

    For ``edm-cifar10``, with 21.19 GMAC: 128 for diffusers, as ours (21.16 GMAC), 168 for
    denoising_diffusion_pytorch (21.01).

    Returns:
        The width, and the multiply-accumulates of an image with it, forward and backward.
    """

    @lru_cache
    def cost(width: int) -> tuple[int, int]:
        with torch.device("meta"):
            return count_macs(build(width), shape)

    widths = range(8, 1025, 8)
    above = bisect_left(widths, target, key=lambda width: cost(width)[0])
    nearby = widths[max(above - 1, 0) : above + 1]
    width = min(nearby, key=lambda width: abs(cost(width)[0] - target))
    return width, cost(width)[1]


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


def require_libraries() -> None:
    """Ends with one line that says what to install if a library is missing."""
    try:
        import_module("diffusers")
        stand_in_for_torchvision()
        import_module("denoising_diffusion_pytorch")
    except ImportError as error:
        print(f"A library to compare with is missing ({error}): {INSTALL}", file=sys.stderr)
        raise SystemExit(2) from None


def stand_in_for_torchvision() -> None:
    """Puts empty modules in the place of a torchvision that is missing or of another torch.

    denoising_diffusion_pytorch imports it only to load and save images; the network does not use
    it.
    """
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError):  # torchvision of another build of torch lacks its operators
        package = empty_module("torchvision")
        for name in ("transforms", "utils"):
            setattr(package, name, empty_module(f"torchvision.{name}"))


def empty_module(name: str) -> ModuleType:
    """A module without contents, which can be imported from now on."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return module


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
