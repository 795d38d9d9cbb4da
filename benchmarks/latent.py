"""What linear patches lose, what encoding costs, and where the stages of their latents lie.

    python benchmarks/latent.py IMAGES.parquet [--pairs 128] [--names pca-f2c6 ...]

Prints tables in Markdown; the report is ``latent.md``. A training step is one of the preset
``small`` in bf16 on as many latents, all in the first stage. Boundaries are also given relative to
the standard deviation of the data, which makes pixels and latents comparable.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from machine import device_name, median_seconds
from train import Steps, configuration

from multistage_diffusion.clustering import ClusterOptions, cluster
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.latents import encode, find_autoencoder
from multistage_diffusion.latents.prepared import cached_latents, in_memory
from multistage_diffusion.latents.quality import reconstruction_psnr
from multistage_diffusion.schedule import DDPM

NAMES = ("pca-f2c3", "pca-f2c4", "pca-f2c6", "pca-f4c8", "pca-f4c12", "pca-f4c16")
TIMED = 256
BATCH = 64
REPEATS = 20


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    data: Annotated[Path, tyro.conf.Positional]
    """Images."""
    names: tuple[str, ...] = NAMES
    """Autoencoders."""
    boundaries_of: tuple[str, ...] = ("pca-f2c3", "pca-f2c6", "pca-f4c12")
    """Those whose latents are clustered."""
    pairs: int = 128
    """Pairs of image and noise."""


def quality(images: Images, names: tuple[str, ...]) -> Iterator[str]:
    """PSNR, and images a second that are encoded on the fly or read."""
    yield "| autoencoder | values | PSNR, dB | encoded, images/s |"
    yield "|---|---|---|---|"
    for name in names:
        autoencoder = find_autoencoder(name, images)
        values = autoencoder.info.channels / autoencoder.info.factor**2 / images.shape[0]
        begun = time.perf_counter()
        encode(autoencoder, images.pixels[:TIMED])
        speed = TIMED / (time.perf_counter() - begun)
        psnr = reconstruction_psnr(autoencoder, images)
        yield f"| `{name}` | {values:.0%} | {psnr:.1f} | {speed:,.0f} |"


def reading(images: Images, names: tuple[str, ...], data: str) -> Iterator[str]:
    """Milliseconds for a batch of latents that are in memory, mapped, or encoded on the fly."""
    yield f"| ms for a batch of {BATCH} | in memory | mapped | encoded | a training step |"
    yield "|---|---|---|---|---|"
    rows = torch.randint(len(images), (BATCH,))
    for name in names:
        autoencoder = find_autoencoder(name, images)
        latents = cached_latents(images, name, data, ReadOptions())
        kept = in_memory(latents)
        ways = (
            partial(kept.pixels.__getitem__, rows),
            partial(latents.pixels.__getitem__, rows),
            lambda autoencoder=autoencoder: encode(autoencoder, images.pixels[rows]),
            training_step(latents.shape),
        )
        cells = [f"{1e3 * median_seconds(way, REPEATS):.3g}" for way in ways]
        yield f"| `{name}` | {' | '.join(cells)} |"


def training_step(shape: tuple[int, int, int]) -> Callable[[], None]:
    """A step of the preset ``small`` on a batch of latents."""
    steps = Steps(configuration("small", shape), torch.bfloat16)
    return partial(steps, torch.full((BATCH,), 0.1, dtype=torch.float64))


def boundaries(images: Images, deviation: float, name: str, pairs: int) -> str:
    """A row about the stages of pixels or latents under the discrete schedule.

    Args:
        images: pixels or latents.
        deviation: standard deviation of the data, in the units of the boundaries.
        name: of the row.
        pairs: of image and noise.
    """
    schedule = DDPM()
    found = cluster(images, schedule, ClusterOptions(pairs=pairs))
    steps = [float(schedule.to_clock(b)) for b in found.stages.boundaries]
    ends = [[float(schedule.to_clock(b)) for b in pair] for pair in found.ci95]
    cells = [f"{s:.0f} ({low:.0f}, {high:.0f})" for s, (low, high) in zip(steps, ends, strict=True)]
    relative = [f"{b / deviation:.1f}" for b in found.stages.boundaries]
    return f"| {name} | {' | '.join(cells)} | {' | '.join(relative)} |"


def main(settings: Settings) -> None:
    """Prints all tables."""
    torch.manual_seed(0)
    print(device_name(), flush=True)
    images = load(settings.data)
    for line in quality(images, settings.names):
        print(line, flush=True)
    print()
    for line in reading(images, settings.names, str(settings.data)):
        print(line, flush=True)
    print("\n| | t1, step | t2, step | t1, sigma / deviation | t2, sigma / deviation |")
    print("|---|---|---|---|---|")
    unit = images.standard_deviation / 2  # boundaries of pixels are for values in [0, 1]
    print(boundaries(images, unit, "pixels", settings.pairs), flush=True)
    for name in settings.boundaries_of:
        latents = cached_latents(images, name, str(settings.data), ReadOptions())
        print(boundaries(latents, 1.0, f"`{name}`", settings.pairs), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
