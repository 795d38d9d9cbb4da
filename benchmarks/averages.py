"""What the clock of a decoder's average is worth: all images, or those of its own stage.

    python benchmarks/averages.py TRAIN TEST [--images 24000] [--seeds 0 1] [--densities edm]

A small three-stage network on images of 32x32 halved to 16x16, under EDM's density, in which the
last stage gets 0.38 % of the images, or others. A run keeps all averages at once, so their weights
come from the same steps. Six times in a run the weighted loss of each stage is measured on images
held out, the same images, noise and levels for all. Prints tables in Markdown; the report is
``averages.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
import tyro
from study import STAGES, halved

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images, load
from multistage_diffusion.denoiser import NetworkDenoiser, fastest_memory_format, set_compute_dtype
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.schedule import SCHEDULES, ScheduleName
from multistage_diffusion.training.batches.batch import draw
from multistage_diffusion.training.batches.levels import Levels, stage_shares
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.ema.averages import Averages
from multistage_diffusion.training.monitoring.probe import Probe
from multistage_diffusion.training.randomness import Stream, seed_globally
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.state import State

POINTS = 6
CLOCKS: tuple[Literal["common", "own"], ...] = ("common", "own")
HALF_LIVES = (250, 1000, 1_000_000)  # in images; the last one is never reached: the ramp alone
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
    """A run of the preset ``small`` under a density."""
    preset = replace_settings(PRESETS["small"], schedule=schedule)
    model = preset_model(
        preset, STAGES, images.shape, sigma_data=round(images.standard_deviation, 4)
    )
    training = replace(preset.training, images=settings.images, seed=seed)
    return RunConfig(
        model=model, training=training, data=DataInfo(path="", fingerprint="", images=len(images))
    )


class Run:
    """A network in training and its averages."""

    def __init__(self, config: RunConfig, images: Images) -> None:
        self.config, self.images, self.levels = config, images, Levels.of(config)
        seed_globally(config.training.seed, Stream.WEIGHTS)
        denoiser = set_compute_dtype(build_denoiser(config.model), torch.bfloat16)
        self.state, self.rates = State.initial(denoiser, config.training), Rates(config)
        options = [
            replace_settings(config.training.averaging, ema_clock=clock, ema_half_life=life)
            for life, clock in product(HALF_LIVES, CLOCKS)
        ]
        self.averages = [Averages(denoiser, option) for option in options]

    def step(self) -> None:
        """A batch, and its weights into every average."""
        state, batch_size = self.state, self.config.training.batch_size
        denoiser = state.denoiser
        draws = draw(self.config, self.images, self.levels, state.images)
        samples = draws.read(0, batch_size, self.images, False, CPU)
        batch = draws.place(samples, CPU, fastest_memory_format(denoiser))
        self.rates.apply(state.optimizer, state.images)
        state.optimizer.zero_grad(set_to_none=True)
        denoiser.loss(batch.y, batch.sigma, batch.noise).mean().backward()
        state.optimizer.step()
        counts = (
            denoiser.stages.index(batch.sigma).bincount(minlength=len(denoiser.stages)).tolist()
        )
        state.count(counts)
        for average in self.averages:
            average.update(denoiser.network, counts)

    def measured(self, probe: Probe) -> list[list[float]]:
        """Losses of each stage, of the weights as they are and of every average."""
        return [
            probe.network_loss(denoiser, CPU)
            for denoiser in (self.state.denoiser.eval(), *self._averaged())
        ]

    def _averaged(self) -> Iterator[NetworkDenoiser]:
        yield from (average.main for average in self.averages)

    def points(self, probe: Probe) -> Iterator[list[list[float]]]:
        """The losses at each of several points of a run."""
        for point in range(1, POINTS + 1):
            self.state.denoiser.train()
            while self.state.images < point * self.config.training.images // POINTS:
                self.step()
            yield self.measured(probe)


def table(shares: Sequence[float], losses: torch.Tensor) -> None:
    """Losses ``[seeds, points, weights, stages]``: at the end, and against the common clock at
    every point.
    """
    headings = " | ".join(f"stage {stage + 1} ({share:.2%})" for stage, share in enumerate(shares))
    print(f"| weights | {headings} |\n|---|{'---|' * len(shares)}")
    names = [
        "as they are",
        *(f"half-life {life:,}, {clock} clock" for life, clock in product(HALF_LIVES, CLOCKS)),
    ]
    for name, end in zip(names, losses[:, -1].unbind(1), strict=True):
        print(
            f"| {name} | "
            f"{' | '.join(f'{m:.4f} ± {s:.4f}' for m, s in zip(*_spread(end), strict=True))} |"
        )
    print("\nOwn clock against the common one, at each sixth of the run:")
    for place, life in enumerate(HALF_LIVES):
        common, own = (losses.mean(0)[:, 1 + 2 * place + clock] for clock in range(2))
        changes = " / ".join(
            ", ".join(f"{change:+.1%}" for change in stage.tolist())
            for stage in (own / common - 1).T
        )
        print(f"- half-life {life:,}: {changes}")


def _spread(values: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and half the difference over the seeds."""
    return values.mean(0).tolist(), (values.amax(0) - values.amin(0)).div(2).tolist()


def main(settings: Settings) -> None:
    """Trains and prints."""
    images, held_out = halved(load(settings.train)), halved(load(settings.test))
    for name in settings.densities:
        probe = Probe.draw(
            held_out, STAGES, SCHEDULES[name], conditional=False, seed=0, per_stage=512
        )
        runs = [Run(configuration(name, images, settings, seed), images) for seed in settings.seeds]
        losses = torch.tensor([list(run.points(probe)) for run in runs])
        print(f"\n### Density {name}\n")
        table(stage_shares(runs[0].config), losses)


if __name__ == "__main__":
    main(tyro.cli(Settings))
