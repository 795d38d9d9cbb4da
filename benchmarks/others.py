"""Training steps of this package and of two others, side by side: forward, backward, Adam and
averaged weights.

    python benchmarks/others.py [--preset edm-cifar10] [--batch-size 16] [--repeats 3]

Compared are the unified twin of a preset, diffusers' ``UNet2DModel`` and
denoising_diffusion_pytorch's ``Unet``, each with as many multiply-accumulates as its width allows
(see ``closest``), on the same images, in bf16 with float32 weights, with the same fused Adam and
the same average. The networks take turns in one process, on the GPU if there is one, in both
layouts of memory where the library does not choose one; the better one counts. Medians, as a table
in Markdown.

The peak memory of a step is measured in a process for each network (``--only``): on a GPU what
torch allocated at most; on the CPU, under Linux, the greatest resident memory of the process
less the resident memory before the network was built.
"""

import copy
import math
import platform
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
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train import DEVICE, Steps, configuration, convolution_rate, seconds_of

from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.schedule import SCHEDULES

OURS = "multistage-diffusion, unified twin"
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
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
    """Print nothing but the bytes that this network needs at most; the script calls itself with
    it."""


@dataclass(frozen=True)
class Candidate:
    """A network that takes part, in one layout."""

    network: str
    layout: str
    training_macs: int
    """Multiply-accumulates of one image, forward and backward."""
    start: Callable[[], Step]
    """Builds the network and returns its training step."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.network}, {self.layout}" if self.layout else self.network


@dataclass(frozen=True)
class Result:
    """What was measured."""

    entrant: Candidate
    speed: float
    """Images a second."""
    peak: int
    """Bytes."""

    @property
    def rate(self) -> float:
        """Multiply-accumulates a second."""
        return self.speed * self.entrant.training_macs

    def row(self, ours: "Result") -> str:
        """A line of the table."""
        speeds = f"{self.speed:.2f} | {self.rate / 1e9:.0f} | {self.rate / ours.rate:.2f}"
        return (
            f"| {self.entrant.name} | {self.entrant.training_macs / 1e9:.2f} | {speeds} | "
            f"{self.peak / 1e9:.2f} |"
        )


def diffusers_unet(config: ModelConfig, width: int) -> nn.Module:
    """Levels, blocks, attention, heads, groups and dropout like ours; on the way up each block of a
    level attends, not one.
    """
    from diffusers import UNet2DModel

    style = config.network
    attends = [
        max(config.shape[1:]) >> level in style.attention_resolutions
        for level in range(len(style.channel_mult))
    ]
    return UNet2DModel(
        sample_size=config.shape[1:],
        in_channels=config.shape[0],
        out_channels=config.shape[0],
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        up_block_types=tuple(
            "AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)
        ),
        block_out_channels=tuple(width * mult for mult in style.channel_mult),
        layers_per_block=style.blocks,
        attention_head_dim=style.head_channels or None,
        norm_num_groups=math.gcd(style.groups, width),
        dropout=style.dropout,
    )


def denoising_diffusion_unet(config: ModelConfig, width: int) -> nn.Module:
    """Levels, attention and dropout like ours.

    It always has two blocks in a level, and linear attention where no other is.
    """
    from denoising_diffusion_pytorch import Unet

    style = config.network
    levels = range(len(style.channel_mult))
    return Unet(
        dim=width,
        init_dim=width
        * style.channel_mult[0],  # a level has the channels that the one above hands to it
        dim_mults=(*style.channel_mult[1:], style.channel_mult[-1]),
        channels=config.shape[0],
        full_attn=tuple(
            max(config.shape[1:]) >> level in style.attention_resolutions for level in levels
        ),
        flash_attn=True,
        dropout=style.dropout,
    )


FOREIGN = {
    "diffusers UNet2DModel": diffusers_unet,
    "denoising_diffusion_pytorch Unet": denoising_diffusion_unet,
}


def predict(network: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    """The network's output, out of the record that diffusers puts it in."""
    output = network(x, time)
    return output if isinstance(output, Tensor) else output.sample


class ForeignSteps:
    """A network of another library and the steps of its training, as in ``Steps``.

    Its loss is the plain one on the noise.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        layout: torch.memory_format,
        shape: Sequence[int],
        batch: int,
    ) -> None:
        self.network: nn.Module = build().to(DEVICE).to(memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=True)
        self.y, self.noise = (
            torch.randn(batch, *shape, device=DEVICE).to(memory_format=layout) for _ in range(2)
        )
        self.time = torch.randint(1000, (batch,), device=DEVICE)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            predicted = predict(self.network, self.y + self.noise, self.time)
        F.mse_loss(predicted.float(), self.noise).backward()
        nn.utils.get_total_norm(
            [p.grad for p in self.network.parameters() if p.grad is not None]
        )  # ours measures it too
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.network.parameters()), 0.01
            )


def macs(network: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of one image on torch's meta device: forward, and forward and
    backward.
    """
    with FlopCounterMode(display=False) as counter:
        output = predict(
            network, torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
        )
        forward = counter.get_total_flops() // 2
        output.sum().backward()
    return forward, counter.get_total_flops() // 2


def closest(
    build: Callable[[int], nn.Module], shape: Sequence[int], target: int
) -> tuple[int, int]:
    """The multiple of 8 as width whose forward pass costs closest to ``target``, and what training
    costs with it.

    For ``edm-cifar10``, with 21.19 GMAC: 128 for diffusers, as ours (21.16 GMAC), 168 for
    denoising_diffusion_pytorch (21.01).
    """

    @lru_cache
    def cost(width: int) -> tuple[int, int]:
        with torch.device("meta"):
            return macs(build(width), shape)

    widths = range(8, 1025, 8)
    above = bisect_left(widths, target, key=lambda width: cost(width)[0])
    width = min(
        widths[max(above - 1, 0) : above + 1], key=lambda width: abs(cost(width)[0] - target)
    )
    return width, cost(width)[1]


def our_steps(settings: Settings) -> Step:
    """Steps of the unified twin, in the layout that the package chooses."""
    config = configuration(settings.preset)
    steps = Steps(replace(config, model=unified(config.model)), torch.bfloat16)
    return partial(steps, SCHEDULES[config.model.schedule].sigma(0.5).expand(settings.batch_size))


def candidates(settings: Settings) -> Iterator[Candidate]:
    """Ours first."""
    config = unified(configuration(settings.preset).model)
    ours = stage_costs(config)[0]
    yield Candidate(OURS, "", ours.training_macs, partial(our_steps, settings))
    for name, build in FOREIGN.items():
        width, cost = closest(partial(build, config), config.shape, ours.macs)
        for layout, order in LAYOUTS.items():
            start = partial(
                ForeignSteps,
                partial(build, config, width),
                order,
                config.shape,
                settings.batch_size,
            )
            yield Candidate(f"{name}, width {width}", layout, cost, start)


def alternating(works: Sequence[Step], repeats: int) -> list[float]:
    """Median seconds of each.

    They take turns, so that whatever else the machine does slows all alike.
    """
    rounds = [[seconds_of(work) for work in works] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def resident(which: str) -> int:
    """Bytes of this process in memory under Linux, ``VmRSS`` now or ``VmHWM`` at most.

    ``getrusage`` would not do: its largest value continues from that of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def peak(candidate: Candidate) -> int:
    """Bytes that training needs at most, weights and Adam's moments included, measured in this
    process.
    """
    before = 0 if DEVICE.type == "cuda" else resident("VmRSS")
    step = candidate.start()
    for _ in range(2):  # the moments are there from the second step on
        step()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - before


def peak_apart(candidate: Candidate, settings: Settings) -> int:
    """The same, measured in a fresh process."""
    options = asdict(replace(settings, only=candidate.name))
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    run = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(run.stdout.split()[-1])


def require_libraries() -> None:
    """Ends with one line about what to install if a library is missing."""
    try:
        import_module("diffusers")
        stand_in_for_torchvision()
        import_module("denoising_diffusion_pytorch")
    except ImportError as error:
        print(f"A library to compare with is missing ({error}): {INSTALL}", file=sys.stderr)
        raise SystemExit(2) from None


def stand_in_for_torchvision() -> None:
    """Puts empty modules in the place of a torchvision that is missing or does not fit this torch.

    denoising_diffusion_pytorch imports it for loading and saving images alone; the network does not
    use it.
    """
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError):  # torchvision of another build of torch lacks its operators
        package, parts = ModuleType("torchvision"), ("transforms", "utils")
        modules = {
            package.__name__: package,
            **{f"torchvision.{part}": ModuleType(f"torchvision.{part}") for part in parts},
        }
        for name, module in modules.items():
            module.__spec__ = ModuleSpec(name, None)
        for part in parts:
            setattr(package, part, modules[f"torchvision.{part}"])
        sys.modules.update(modules)


def measure(entrants: Sequence[Candidate], settings: Settings) -> list[Result]:
    """Peaks one after the other, then speeds in turns; in the order of the entrants."""
    peaks = [peak_apart(entrant, settings) for entrant in entrants]
    times = alternating([entrant.start() for entrant in entrants], settings.repeats)
    speeds = [settings.batch_size / seconds for seconds in times]
    return [Result(*values) for values in zip(entrants, speeds, peaks, strict=True)]


def report(results: Sequence[Result]) -> None:
    """Prints each network in its better layout, the first being the one that others are compared
    with; then the other layouts.
    """
    print(
        "| training step | GMAC/image | images/s | GMAC/s | of ours | peak memory, GB "
        "|\n|---|---|---|---|---|---|"
    )
    worse = []
    for network in dict.fromkeys(result.entrant.network for result in results):
        layouts = [result for result in results if result.entrant.network == network]
        best, *rest = sorted(layouts, key=lambda result: -result.speed)
        print(best.row(results[0]))
        worse += rest
    print()
    for other in worse:
        print(
            f"Slower layout: {other.entrant.name}, {other.speed:.2f} images/s, peak "
            f"{other.peak / 1e9:.2f} GB"
        )


def main(settings: Settings) -> None:
    """Measures and prints."""
    require_libraries()
    entrants = list(candidates(settings))
    if settings.only:
        print(peak(next(entrant for entrant in entrants if entrant.name == settings.only)))
        return
    where = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else f"{platform.processor()}, {torch.get_num_threads()} threads"
    )
    print(
        f"{where}, torch {torch.__version__}; {settings.preset}, batch {settings.batch_size}, "
        f"medians of {settings.repeats}"
    )
    print(f"bf16 convolution: {convolution_rate(settings.repeats) / 1e9:.0f} GMAC/s\n", flush=True)
    report(measure(entrants, settings))


if __name__ == "__main__":
    main(tyro.cli(Settings))
