"""Whether training waits for its data: waiting times of steps, decoding, and the cache.

    python benchmarks/data.py CIFAR FOLDER [--count 50000] [--seconds 20]

CIFAR is anything that ``multistage train --data`` reads from files, CIFAR-10 in the report. FOLDER
is filled with ``count`` JPEG files of 256x256 (noise of several scales, about 25 kB each) unless it
exists; their cache is made next to it, after an earlier one is removed. Everything is measured in
one run, on the GPU if there is one, and printed as tables in Markdown; the report is ``data.md``.
"""

import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import tyro
from machine import DEVICE, device_name, seconds_of, synchronize
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import decode
from multistage_diffusion.data.parallel import cores, in_order
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.training.batches.batch import Batch
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.reader import MOST_AHEAD, BatchReader
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.state import State

AHEAD = (0, min(MOST_AHEAD, cores()))
"""Batches read ahead: none, and as many as a run reads from files."""
SIDE = 256
OCTAVES = ((4, 50.0), (16, 25.0), (64, 12.0), (SIDE, 9.0))
"""Side and amplitude of the noise that images are made of."""
TINY = NetworkConfig(
    encoder_widths=(8,), decoder_widths=(8, 8, 8), channel_mult=(1, 1, 1), blocks=1
)
"""A network with almost nothing to compute: the steps of a useful one take longer."""
TURN = 10
UNCOUNTED = 4


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    cifar: tyro.conf.Positional[str]
    folder: tyro.conf.Positional[Path]
    count: int = 50_000
    """Images to make."""
    decoded: int = 4_000
    """Images whose decoding is timed."""
    seconds: float = 20.0
    """Time for each kind of step."""


def make_image(number: int) -> Image.Image:
    """Smooth noise of several scales."""
    rng = np.random.default_rng(number)
    total = np.zeros((SIDE, SIDE, 3), np.float32)
    for side, amplitude in OCTAVES:
        noise = 128 + amplitude * rng.standard_normal((side, side, 3))
        octave = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
        resized = octave.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        total += np.asarray(resized, np.float32) - 128
    return Image.fromarray((128 + total).clip(0, 255).astype(np.uint8))


def make_files(folder: Path, numbers: range) -> None:
    """JPEG files of quality 90, up to 1000 in a subfolder."""
    for number in numbers:
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        make_image(number).save(path, quality=90)


def make_folder(folder: Path, count: int) -> None:
    """All files, made on all cores, under a temporary name until they are complete."""
    temporary = folder.with_name(f"{folder.name}.incomplete")
    temporary.mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + 1000, count)) for start in range(0, count, 1000)]
    with ProcessPoolExecutor(cores()) as pool:
        list(pool.map(partial(make_files, temporary), parts))
    temporary.rename(folder)


def decoding_rate(source: str, count: int, threads: int) -> float:
    """Images decoded a second."""
    listing = list_images(source)
    assert isinstance(listing, Listing)
    entries = list(islice(listing.entries(), count))
    decoded = in_order(lambda entry: decode(entry.open), entries, threads)
    return len(entries) / seconds_of(lambda: sum(1 for _ in decoded))


def configuration(images: Images, network: NetworkConfig | None, batch: int) -> RunConfig:
    """The preset ``small`` on these images, or another network trained like it."""
    preset = PRESETS["small"]
    preset = replace(preset, network=network or preset.network)
    model = preset_model(preset, choose_stages(preset, None), images.shape)
    training = replace(preset.training, images=1 << 40, batch_size=batch)
    data = DataInfo(path="", fingerprint="", images=len(images))
    return RunConfig(model=model, training=training, data=data)


def batch_reader(config: RunConfig, images: Images, ahead: int) -> BatchReader:
    """A reader of whole batches."""
    rows = [torch.arange(config.training.batch_size)]
    return BatchReader(config, images, Levels.of(config), lambda _: rows, DEVICE, ahead)


@dataclass(frozen=True)
class StepTime:
    """How long a training step took."""

    waited: float
    """Seconds for which it waited for its batch."""
    total: float
    """Seconds of the whole step."""


class Steps:
    """A run without its records and checkpoints."""

    def __init__(self, config: RunConfig, images: Images, ahead: int) -> None:
        denoiser = set_compute_dtype(build_denoiser(config.model).to(DEVICE), torch.bfloat16)
        self.state = State.initial(denoiser, config.training)
        self.reader = batch_reader(config, images, ahead)
        self.counts = [config.training.batch_size, 0, 0]

    def __call__(self) -> StepTime:
        """Trains on a batch."""
        start = time.perf_counter()
        draws, (samples,) = self.reader(self.state.images)
        waited = time.perf_counter() - start
        self._update_weights(draws.place(samples, DEVICE, MEMORY_FORMAT))
        synchronize()
        return StepTime(waited, time.perf_counter() - start)

    def _update_weights(self, batch: Batch) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.denoiser.loss(batch.y, batch.sigma, batch.noise).mean().backward()
        self.state.optimizer.step()
        self.state.count(self.counts)


def step_times(config: RunConfig, images: Images, seconds: float) -> dict[int, list[StepTime]]:
    """Times of steps by the number of batches read ahead.

    Runs with and without reading ahead take turns of ten steps; the last six of a turn count.
    """
    runs = {ahead: Steps(config, images, ahead) for ahead in AHEAD}
    times: dict[int, list[StepTime]] = {ahead: [] for ahead in AHEAD}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[0]:
        for ahead, step in runs.items():
            turn = [step() for _ in range(TURN)]
            times[ahead] += turn[UNCOUNTED:]
    return times


def reading_rate(config: RunConfig, images: Images, ahead: int, seconds: float) -> float:
    """Images read a second, noise included, if nothing else is done."""
    batch = config.training.batch_size
    reader = batch_reader(config, images, ahead)
    start = time.perf_counter()
    read = 0
    while time.perf_counter() < start + seconds:
        reader(read)
        read += batch
    return read / (time.perf_counter() - start)


def paused_share(
    config: RunConfig, images: Images, ahead: int, speed: float, seconds: float
) -> float:
    """Share of the time that steps wait on a device that leaves the CPU free.

    The device is simulated by pauses.

    Args:
        config: the run.
        images: its data set.
        ahead: batches read ahead.
        speed: images that the device trains on a second.
        seconds: how long to measure.
    """
    pause = config.training.batch_size / speed
    waited = statistics.mean(paused_waits(config, images, ahead, pause, seconds))
    return waited / (waited + pause)


def paused_waits(
    config: RunConfig, images: Images, ahead: int, pause: float, seconds: float
) -> Iterator[float]:
    """Seconds that each step waits for its batch, where pauses stand for computing."""
    reader = batch_reader(config, images, ahead)
    end = time.perf_counter() + seconds
    seen = 0
    while (start := time.perf_counter()) < end:
        reader(seen)
        yield time.perf_counter() - start
        seen += config.training.batch_size
        time.sleep(pause)


def print_decoding(settings: Settings) -> None:
    """Prints how fast images are decoded."""
    print("| decoding | one thread, images/s | all cores |\n|---|---|---|")
    for source in (settings.cifar, str(settings.folder)):
        rates = [median_decoding_rate(source, settings.decoded, n) for n in (1, cores())]
        print(f"| {source} | {rates[0]:.0f} | {rates[1]:.0f} |", flush=True)


def median_decoding_rate(source: str, count: int, threads: int) -> float:
    """The median of three."""
    return statistics.median(decoding_rate(source, count, threads) for _ in range(3))


def print_cache(settings: Settings, options: ReadOptions) -> None:
    """Prints how long it takes to build the cache and to find it again."""
    shutil.rmtree(str(options.cache), ignore_errors=True)
    read = partial(load, settings.folder, options)
    built = seconds_of(read)
    found = statistics.median(seconds_of(read) for _ in range(3))
    print(f"\nCache of {settings.count} images: built in {built:.0f} s, found in {found:.2f} s.\n")


def print_steps(small: Images, large: Images, seconds: float) -> None:
    """Prints how long training steps wait for their batches."""
    print("| steps | batch | read ahead | waiting | images/s | the loader alone, images/s |")
    print("|---|---|---|---|---|---|")
    print_rows("CIFAR-10, `small`", configuration(small, None, 64), small, seconds)
    print_rows("CIFAR-10, tiny network", configuration(small, TINY, 64), small, seconds)
    print_rows("256x256, tiny network", configuration(large, TINY, 4), large, seconds)


def print_rows(name: str, config: RunConfig, images: Images, seconds: float) -> None:
    """Prints a line of the table of steps for each number of batches read ahead."""
    batch = config.training.batch_size
    for ahead, times in step_times(config, images, seconds).items():
        share = sum(step.waited for step in times) / sum(step.total for step in times)
        speed = batch / statistics.median(step.total for step in times)
        alone = reading_rate(config, images, ahead, 3)
        row = f"| {name} | {batch} | {ahead} | {share:.2%} | {speed:.0f} | {alone:.0f} |"
        print(row, flush=True)


def print_paused_steps(small: Images, large: Images) -> None:
    """Prints how long steps wait on devices that leave the CPU free."""
    headings = "waiting without reading ahead | with reading ahead"
    print(f"\n| steps of a separate device | batch | images/s | {headings} |")
    print("|---|---|---|---|---|")
    print_paused_rows("CIFAR-10", small, 64, (1000, 4000, 8000))
    print_paused_rows("256x256", large, 16, (50, 200, 400))


def print_paused_rows(name: str, images: Images, batch: int, speeds: tuple[int, ...]) -> None:
    """Prints a line of that table for each speed."""
    config = configuration(images, None, batch)
    for speed in speeds:
        shares = [f"{paused_share(config, images, ahead, speed, 4):.2%}" for ahead in AHEAD]
        print(f"| {name} | {batch} | {speed} | {' | '.join(shares)} |", flush=True)


def main(settings: Settings) -> None:
    """Measures and prints."""
    if not settings.folder.exists():
        make_folder(settings.folder, settings.count)
    print(f"{device_name()}, {cores()} cores, torch {torch.__version__}\n")
    print_decoding(settings)
    options = ReadOptions(cache=settings.folder.with_name(f"{settings.folder.name}.cache"))
    print_cache(settings, options)
    small = load(settings.cifar)
    large = load(settings.folder, options)
    print_steps(small, large, settings.seconds)
    print_paused_steps(small, large)


if __name__ == "__main__":
    main(tyro.cli(Settings))
