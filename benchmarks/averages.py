"""Which clock a decoder's average should have: all images, or those of its own stage.

    python benchmarks/averages.py TRAIN TEST [--images 24000] [--seeds 0 1] [--densities edm]

A small three-stage network is trained on images of 32x32 halved to 16x16, under EDM's density (in
which the last stage gets 0.38 % of the images) or others. A run keeps all averages at once, so that
they average the same weights. Six times in a run the weighted loss of each stage is measured on
held-out images, with the same images, noise and noise levels for all. The script prints tables in
Markdown; the report is ``averages.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
import tyro

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images, load
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.schedule import SCHEDULES, ScheduleName
from multistage_diffusion.training.batches.batch import Batch, draw
from multistage_diffusion.training.batches.levels import Levels, stage_shares
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.ema.averages import Averages
from multistage_diffusion.training.monitoring.probe import Probe
from multistage_diffusion.training.randomness import Stream, seed_globally
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.state import State
from study import STAGES, halved, mean_and_spread

POINTS = 6
CLOCKS: tuple[Literal["common", "own"], ...] = ("common", "own")
HALF_LIVES = (250, 1000, 1_000_000)  # in images; the ramp never reaches the last one
AVERAGES = list(product(HALF_LIVES, CLOCKS))
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    train: tyro.conf.Positional[str]
    test: tyro.conf.Positional[str]
    images: int = 24_000
    seeds: tuple[int, ...] = (0, 1)
    densities: tuple[ScheduleName, ...] = ("edm",)


def configuration(
    schedule: ScheduleName, images: Images, settings: Settings, seed: int
) -> RunConfig:
    """A run of the preset ``small`` under a density of noise levels."""
    preset = replace_settings(PRESETS["small"], schedule=schedule)
    sigma_data = round(images.standard_deviation, 4)
    model = preset_model(preset, STAGES, images.shape, sigma_data=sigma_data)
    training = replace(preset.training, images=settings.images, seed=seed)
    data = DataInfo(path="", fingerprint="", images=len(images))
    return RunConfig(model=model, training=training, data=data)


class AveragedRun:
    """A network in training and several averages of its weights."""

    def __init__(self, config: RunConfig, images: Images) -> None:
        self.config = config
        self.images = images
        self.levels = Levels.of(config)
        self.rates = Rates(config)
        seed_globally(config.training.seed, Stream.WEIGHTS)
        denoiser = set_compute_dtype(build_denoiser(config.model), torch.bfloat16)
        self.state = State.initial(denoiser, config.training)
        averaging = config.training.averaging
        self.averages = [
            Averages(denoiser, replace(averaging, ema_clock=clock, ema_half_life=half_life))
            for half_life, clock in AVERAGES
        ]

    def losses_at_points(self, probe: Probe) -> Iterator[list[list[float]]]:
        """Trains, and yields the losses after each sixth of the run, ``[weights][stages]``."""
        for point in range(1, POINTS + 1):
            self.state.denoiser.train()
            while self.state.images < point * self.config.training.images // POINTS:
                self._step()
            yield self._losses(probe)

    def _step(self) -> None:
        """Trains on a batch and updates every average."""
        denoiser = self.state.denoiser
        batch = self._next_batch()
        self._update_weights(batch)
        stages = denoiser.stages.index(batch.sigma)
        counts = stages.bincount(minlength=len(denoiser.stages)).tolist()
        self.state.count(counts)
        for average in self.averages:
            average.update(denoiser.network, counts)

    def _next_batch(self) -> Batch:
        draws = draw(self.config, self.images, self.levels, self.state.images)
        rows = torch.arange(self.config.training.batch_size)
        samples = draws.read(rows, self.images, False, CPU)
        return draws.place(samples, CPU, MEMORY_FORMAT)

    def _update_weights(self, batch: Batch) -> None:
        state = self.state
        self.rates.apply(state.optimizer, state.images)
        state.optimizer.zero_grad(set_to_none=True)
        state.denoiser.loss(batch.y, batch.sigma, batch.noise).mean().backward()
        state.optimizer.step()

    def _losses(self, probe: Probe) -> list[list[float]]:
        """Loss of each stage with the raw weights and with every average."""
        averaged = [average.main for average in self.averages]
        denoisers = [self.state.denoiser.eval(), *averaged]
        return [probe.network_loss(denoiser, CPU) for denoiser in denoisers]


def print_table(shares: Sequence[float], losses: torch.Tensor) -> None:
    """Prints the losses at the end of the run.

    Args:
        shares: share of each stage in the training images.
        losses: ``[seeds, points, weights, stages]``.
    """
    headings = " | ".join(f"stage {stage + 1} ({share:.2%})" for stage, share in enumerate(shares))
    print(f"| weights | {headings} |\n|---|{'---|' * len(shares)}")
    averages = [f"half-life {half_life:,}, {clock} clock" for half_life, clock in AVERAGES]
    for name, last in zip(["raw", *averages], losses[:, -1].unbind(1), strict=True):
        print(f"| {name} | {' | '.join(mean_and_spread(last))} |")


def print_changes(losses: torch.Tensor) -> None:
    """Prints how each half-life's loss with its own clock compares to that with the common one.

    Args:
        losses: ``[seeds, points, weights, stages]``, of the raw weights and then of ``AVERAGES``.
    """
    print("\nOwn clock against the common one, at each sixth of the run:")
    mean = losses.mean(0)
    by_half_life = mean[:, 1:].unflatten(1, (len(HALF_LIVES), len(CLOCKS)))
    common, own = by_half_life.unbind(2)
    for half_life, changes in zip(HALF_LIVES, (own / common - 1).unbind(1), strict=True):
        stages = [_percentages(stage) for stage in changes.T]
        print(f"- half-life {half_life:,}: {' / '.join(stages)}")


def _percentages(changes: torch.Tensor) -> str:
    return ", ".join(f"{change:+.1%}" for change in changes.tolist())


def compare(schedule: ScheduleName, images: Images, held_out: Images, settings: Settings) -> None:
    """Trains under a density of noise levels and prints its tables."""
    density = SCHEDULES[schedule]
    probe = Probe.draw(held_out, STAGES, density, conditional=False, seed=0, per_stage=512)
    configs = [configuration(schedule, images, settings, seed) for seed in settings.seeds]
    runs = [AveragedRun(config, images) for config in configs]
    losses = torch.tensor([list(run.losses_at_points(probe)) for run in runs])
    print(f"\n### Density {schedule}\n")
    print_table(stage_shares(configs[0]), losses)
    print_changes(losses)


def main(settings: Settings) -> None:
    """Trains and prints."""
    images = halved(load(settings.train))
    held_out = halved(load(settings.test))
    for schedule in settings.densities:
        compare(schedule, images, held_out, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
