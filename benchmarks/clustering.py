"""Time of the optimal denoiser for one pair of image and noise at one level, against a plain
evaluation.

    python benchmarks/clustering.py DATA [--pairs 128] [--levels 33] [--repeats 3]

DATA is whatever ``multistage cluster --data`` reads; the report in ``benchmarks/clustering.md`` is
for the 50,000 training images of CIFAR-10. Everything is timed in one run, on the GPU if there is
one: the plain evaluation (two float32 matrix products and a softmax), ours, and the machine's rate
for a large float32 matrix product. Medians are printed as a table in Markdown.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from multistage_diffusion.data import Images, load, to_unit_range
from multistage_diffusion.distributed import float64_device
from multistage_diffusion.optimal import OptimalDenoiser, PairDenoiser
from multistage_diffusion.schedule import VP


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    data: tyro.conf.Positional[str]
    pairs: int = 128
    """Pairs in one call of ours; the plain evaluation takes as many noisy images at a time."""
    levels: int = 33
    """Levels, uniform in t."""
    repeats: int = 3
    """Timings of which the median is taken."""


DEVICE = float64_device()


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of ``work`` after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def plain(x: Tensor, data: Tensor, squares: Tensor, sigma: float) -> Tensor:
    """The formula as two float32 products; inexact at small sigma."""
    logits = torch.addmm(squares, x, data.T, beta=-0.5) / sigma**2
    return torch.softmax(logits, 1) @ data


def product_rate(repeats: int) -> float:
    """Float32 multiply-accumulates a second in a product of 2048 x 3072 x 2048."""
    a, b = torch.randn(2048, 3072, device=DEVICE), torch.randn(3072, 2048, device=DEVICE)
    return 2048 * 3072 * 2048 / seconds(lambda: a @ b, repeats)


def error(images: Images, indices: Tensor, noise: Tensor, sigmas: Tensor, found: Tensor) -> float:
    """Largest difference to the float64 evaluation on the first two pairs, in units of the pixel
    range.
    """
    y = to_unit_range(images.pixels[indices[:2]], torch.float64)
    x = (y[:, None] + sigmas[:, None, None, None] * noise[:2, None]).flatten(0, 1)
    exact = OptimalDenoiser(images.pixels)(x, sigmas.repeat(2)).unflatten(0, (2, len(sigmas)))
    return float((found[:2].cpu().double() - exact).abs().max()) / 2


def main(settings: Settings) -> None:
    """Measures and prints."""
    images = load(settings.data)
    indices = torch.randperm(len(images))[: settings.pairs]
    noise = torch.randn(settings.pairs, *images.shape, dtype=torch.float64)
    sigmas = VP().levels(settings.levels) * 2
    ours = PairDenoiser(images.pixels, device=DEVICE)
    found = ours(indices, noise, sigmas)
    data = to_unit_range(images.pixels[:]).flatten(1).to(DEVICE)
    squares, x = data.square().sum(1), data[indices] + noise.flatten(1).float().to(DEVICE)
    evaluations = settings.pairs * settings.levels
    times = {
        "plain, two float32 products": seconds(
            lambda: plain(x, data, squares, 1.0), settings.repeats
        )
        / settings.pairs,
        "ours": seconds(lambda: ours(indices, noise, sigmas), settings.repeats) / evaluations,
    }
    rate, macs = product_rate(settings.repeats), 2 * data.numel()
    where = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}, torch {torch.__version__}; {len(images)} images of {images.shape}")
    print(f"float32 matrix product: {rate / 1e9:.0f} GMAC/s")
    print(
        f"largest error of ours: {error(images, indices, noise, sigmas, found):.1e} of the pixel "
        "range\n"
    )
    print(
        "| evaluation | ms for a pair at a level | against plain | share of the product rate "
        "|\n|---|---|---|---|"
    )
    for name, value in times.items():
        ratio = times["plain, two float32 products"] / value
        print(f"| {name} | {value * 1e3:.2f} | {ratio:.2f} x | {macs / value / rate:.0%} |")


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor()
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
