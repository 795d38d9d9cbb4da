"""Whether training waits for its data: share of the time of a step, decoding, the cache, and the
loader alone.

    python benchmarks/data.py CIFAR FOLDER [--count 50000] [--seconds 20]

CIFAR is whatever ``multistage train --data`` reads, CIFAR-10 in the report. FOLDER is filled with
``count`` JPEG files of 256x256 (noise of several scales, about 25 kB each) unless it exists; their
cache is made beside it and removed first. Everything is measured in one run, on the GPU if there is
one, and printed as tables in Markdown; the report is ``data.md``.
"""

import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import decode
from multistage_diffusion.data.parallel import cores, in_order
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.denoiser import fastest_memory_format, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.reader import MOST_AHEAD, BatchReader
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.state import State

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
AHEAD = (0, min(MOST_AHEAD, cores()))  # not, and as a run does
SIDE = 256
# A network with next to nothing to compute: no step of a real one is as short
LEAST = NetworkConfig(
    encoder_widths=(8,), decoder_widths=(8, 8, 8), channel_mult=(1, 1, 1), blocks=1
)


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    cifar: tyro.conf.Positional[str]
    folder: tyro.conf.Positional[Path]
    count: int = 50_000
    """Images to make."""
    decoded: int = 4_000
    """Images of which decoding is timed."""
    seconds: float = 20.0
    """Time for each kind of step."""


def make(folder: Path, numbers: range) -> None:
    """Smooth noise of several scales, as JPEG files of quality 90."""
    for number in numbers:
        rng, total = np.random.default_rng(number), np.zeros((SIDE, SIDE, 3), np.float32)
        for side, height in ((4, 50.0), (16, 25.0), (64, 12.0), (SIDE, 9.0)):
            octave = Image.fromarray(
                (128 + height * rng.standard_normal((side, side, 3))).clip(0, 255).astype(np.uint8)
            )
            total += (
                np.asarray(octave.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) - 128
            )
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((128 + total).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def make_all(folder: Path, count: int) -> None:
    """All of them, by all cores, under a temporary name until they are whole."""
    temporary = folder.with_name(f"{folder.name}.making")
    temporary.mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + 1000, count)) for start in range(0, count, 1000)]
    with ProcessPoolExecutor(cores()) as pool:
        list(pool.map(partial(make, temporary), parts))
    temporary.rename(folder)


def timed(work: Callable[[], object]) -> float:
    """Seconds until ``work`` is done."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decoding(source: str, count: int, threads: int) -> float:
    """Images a second."""
    listing = list_images(source)
    assert isinstance(listing, Listing)
    entries = list(islice(listing.entries(), count))
    return len(entries) / timed(
        lambda: sum(1 for _ in in_order(lambda entry: decode(entry.open), entries, threads))
    )


def configuration(images: Images, network: NetworkConfig | None, batch: int) -> RunConfig:
    """The preset ``small`` on these images, or another network."""
    preset = PRESETS["small"]
    preset = preset if network is None else replace(preset, network=network)
    model = preset_model(preset, choose_stages(preset, None), images.shape)
    training = replace(preset.training, images=1 << 40, batch_size=batch)
    return RunConfig(
        model=model, training=training, data=DataInfo(path="", fingerprint="", images=len(images))
    )


class Steps:
    """A run without its records and checkpoints."""

    def __init__(self, config: RunConfig, images: Images, ahead: int) -> None:
        denoiser = set_compute_dtype(build_denoiser(config.model).to(DEVICE), torch.bfloat16)
        self.state, self.layout = (
            State.initial(denoiser, config.training),
            fastest_memory_format(denoiser),
        )
        self.feed = BatchReader(
            config, images, Levels.of(config), [(0, config.training.batch_size)], DEVICE, ahead
        )
        self.batch = config.training.batch_size

    def __call__(self) -> tuple[float, float]:
        """One step; returns the seconds it waited for its batch and all its seconds."""
        start = time.perf_counter()
        draws, (samples,) = self.feed(self.state.images)
        waited = time.perf_counter() - start
        batch = draws.place(samples, DEVICE, self.layout)
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(batch.y, batch.sigma, batch.noise).mean().backward()
        self.state.optimizer.step()
        self.state.count([self.batch, 0, 0])
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return waited, time.perf_counter() - start


def steps(config: RunConfig, images: Images, seconds: float) -> Iterator[tuple[int, float, float]]:
    """Share of their time that steps wait, and images a second, without and with reading ahead;
    they take turns of ten steps, of which the last six count.
    """
    several = {ahead: Steps(config, images, ahead) for ahead in AHEAD}
    times: dict[int, list[tuple[float, float]]] = {ahead: [] for ahead in AHEAD}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 6:
        for ahead, step in several.items():
            times[ahead] += [step() for _ in range(10)][4:]
    for ahead in AHEAD:
        waited, whole = zip(*times[ahead], strict=True)
        yield ahead, sum(waited) / sum(whole), config.training.batch_size / statistics.median(whole)


def alone(config: RunConfig, images: Images, ahead: int, seconds: float) -> float:
    """Images a second that are read and whose noise is drawn, with nothing else to do."""
    feed = BatchReader(
        config, images, Levels.of(config), [(0, config.training.batch_size)], DEVICE, ahead
    )
    start, batches = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        feed(batches * config.training.batch_size)
        batches += 1
    return batches * config.training.batch_size / (time.perf_counter() - start)


def paused(config: RunConfig, images: Images, ahead: int, speed: float, seconds: float) -> float:
    """Share of the time that steps wait on a device of a given speed, which leaves the CPU
    free.
    """
    batch, waited, start = config.training.batch_size, list[float](), time.perf_counter()
    feed = BatchReader(config, images, Levels.of(config), [(0, batch)], DEVICE, ahead)
    while time.perf_counter() < start + seconds:
        waited.append(timed(partial(feed, len(waited) * batch)))
        time.sleep(batch / speed)
    return statistics.mean(waited) / (statistics.mean(waited) + batch / speed)


def report(name: str, config: RunConfig, images: Images, seconds: float) -> Iterator[str]:
    """Lines of the table of steps, by the number of batches that are read ahead."""
    for ahead, share, speed in steps(config, images, seconds):
        read = alone(config, images, ahead, 3)
        batch = config.training.batch_size
        yield f"| {name} | {batch} | {ahead} | {share:.2%} | {speed:.0f} | {read:.0f} |"


def main(settings: Settings) -> None:
    """Measures and prints."""
    if not settings.folder.exists():
        make_all(settings.folder, settings.count)
    where = (
        torch.cuda.get_device_name()
        if DEVICE.type == "cuda"
        else platform.processor() or platform.machine()
    )
    print(
        f"{where}, {cores()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads\n"
    )
    print("| decoding | one thread, images/s | all cores |\n|---|---|---|")
    for source in (settings.cifar, str(settings.folder)):
        rates = [
            [decoding(source, settings.decoded, threads) for _ in range(3)]
            for threads in (1, cores())
        ]
        print(
            f"| {source} | {' | '.join(f'{statistics.median(rate):.0f}' for rate in rates)} |",
            flush=True,
        )
    options = ReadOptions(cache=settings.folder.with_name(f"{settings.folder.name}.cache"))
    shutil.rmtree(str(options.cache), ignore_errors=True)
    built = timed(lambda: load(settings.folder, options))
    found = statistics.median(timed(lambda: load(settings.folder, options)) for _ in range(3))
    print(
        f"\nCache of {settings.count} images: built in {built:.0f} s, found in {found:.2f} s.\n",
        flush=True,
    )
    print(
        "| steps | batch | read ahead | waiting | images/s | the loader alone, images/s "
        "|\n|---|---|---|---|---|---|"
    )
    small, large = load(settings.cifar), load(settings.folder, options)
    for line in report(
        "CIFAR-10, `small`", configuration(small, None, 64), small, settings.seconds
    ):
        print(line, flush=True)
    for line in report(
        "CIFAR-10, next to nothing", configuration(small, LEAST, 64), small, settings.seconds
    ):
        print(line, flush=True)
    for line in report(
        "256x256, next to nothing", configuration(large, LEAST, 4), large, settings.seconds
    ):
        print(line, flush=True)
    print(
        "\n| steps of a device of its own | batch | images/s | waiting without reading ahead | "
        "with |\n|---|---|---|---|---|"
    )
    for name, images, batch, speeds in (
        ("CIFAR-10", small, 64, (1000, 4000, 8000)),
        ("256x256", large, 16, (50, 200, 400)),
    ):
        config = configuration(images, None, batch)
        for speed in speeds:
            shares = [f"{paused(config, images, ahead, speed, 4):.2%}" for ahead in AHEAD]
            print(f"| {name} | {batch} | {speed} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    main(tyro.cli(Settings))
