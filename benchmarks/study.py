"""Which decoders, shares and batches learn most from the same number of multiply-accumulates.

    python benchmarks/study.py TRAIN TEST --out FOLDER [--budget 16] [--seeds 0 1] [--only NAME ...]

Small networks on images of 32x32 halved to 16x16, until each run has spent the same number of MACs
in training. Six times in each run the averaged weights are measured on images held out: the
weighted loss in each of three stages, on the same images, noise and levels for all. An interrupted
study continues. Prints a table in Markdown and writes ``study.svg``; the report is ``study.md``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import torch
import tyro

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs
from multistage_diffusion.data import Images, load
from multistage_diffusion.interop import warm_start
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.preconditioning import PreconditioningName
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.run import Run
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import train
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import DataInfo, RunConfig, TrainingConfig, run_config
from multistage_diffusion.training.monitoring.probe import Probe

mpl.use("svg")
STAGES = Stages((2.51, 7.40))
POINTS = 6


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    train: tyro.conf.Positional[str]
    test: tyro.conf.Positional[str]
    out: Path
    budget: float = 16
    """Training MACs of a run, in T (10^12)."""
    seeds: tuple[int, ...] = (0, 1)
    preconditioning: PreconditioningName = "edm"
    only: tuple[str, ...] = ()
    """Names of the recipes to run; all if not given."""


@dataclass(frozen=True)
class Recipe:
    """One way to train."""

    widths: tuple[int, ...] = (32,)
    shares: Literal["natural", "uniform"] | tuple[float, ...] = "natural"
    batches: Literal["mixed", "single-stage"] = "mixed"
    warm: float = 0.0
    """Part of the budget that goes to the unified network of a warm start."""
    rates: tuple[float, ...] = ()
    """Learning rates of the encoder and each decoder."""


RECIPES = {
    "unified, natural": Recipe(),
    "unified, 1/3 each": Recipe(shares="uniform"),
    "48/32/16, 1/3 each, single-stage": Recipe((48, 32, 16), "uniform", "single-stage"),
    "48/32/16, 1/3 each": Recipe((48, 32, 16), "uniform"),
    "48/32/16, natural": Recipe((48, 32, 16)),
    "40/32/24, natural": Recipe((40, 32, 24)),
    "40/24/24, natural": Recipe((40, 24, 24)),
    "40/24/24, natural, warm start": Recipe((40, 24, 24), warm=0.25),
    "40/24/24, natural, warm start at half": Recipe((40, 24, 24), warm=0.5),
    "40/24/24, natural, warm start, lower rates": Recipe(
        (40, 24, 24), warm=0.25, rates=(1e-3, 1e-3, 3e-4, 3e-4)
    ),
    "40/32/32, natural, warm start": Recipe((40, 32, 32), warm=0.25),
    "40/32/32, natural, warm start at half": Recipe((40, 32, 32), warm=0.5),
    "40/32/32, 0.36/0.34/0.30, warm start": Recipe((40, 32, 32), (0.36, 0.34, 0.30), warm=0.25),
}


def halved(images: Images) -> Images:
    """Every two by two pixels become their mean."""
    mean = torch.nn.functional.avg_pool2d(images.pixels[:].float(), 2)
    return Images(mean.round().to(torch.uint8), source=f"{images.source} at half the size")


def configuration(
    recipe: Recipe, images: Images, settings: Settings, seed: int, part: float = 1.0
) -> RunConfig:
    """A run that spends part of the budget."""
    preset = replace_settings(PRESETS["small"], preconditioning=settings.preconditioning)
    several = len(recipe.widths) > 1
    preset = replace(preset, network=replace(preset.network, decoder_widths=recipe.widths))
    model = preset_model(
        preset,
        STAGES if several else Stages(()),
        images.shape,
        sigma_data=round(images.standard_deviation, 4),
    )
    shared = () if several else STAGES.boundaries
    training = replace_settings(
        preset.training,
        seed=seed,
        shares=recipe.shares,
        batches=recipe.batches,
        share_boundaries=shared,
    )
    training = replace_settings(training, learning_rates=recipe.rates)
    data = DataInfo(path="", fingerprint=images.fingerprint, images=len(images))
    config = RunConfig(
        model=model, training=training, data=data, init="warm" if recipe.warm else ""
    )
    return replace(
        config, training=_with_length(training, int(part * settings.budget * 1e12 / macs(config)))
    )


def _with_length(training: TrainingConfig, images: int) -> TrainingConfig:
    interval = images // POINTS
    return replace_settings(
        training, images=images, record_images=interval, checkpoint_images=interval, keep_every=1
    )


def macs(config: RunConfig) -> float:
    """Training MACs of a run for an image."""
    costs = stage_costs(config.model)
    return sum(
        share * cost.training_macs for share, cost in zip(stage_shares(config), costs, strict=True)
    )


def run(recipe: Recipe, images: Images, settings: Settings, seed: int, out: Path) -> float:
    """Trains, and returns the MACs that were spent before."""
    part, init = 1.0, None
    if recipe.warm:
        unified = configuration(Recipe(shares=recipe.shares), images, settings, seed, recipe.warm)
        first = out.with_name(f"{out.name} (first part)")
        for _ in train(unified, images, first):
            pass
        base = load_model(first / "model.safetensors")
        denoiser, model = warm_start(base.denoiser, base.config, STAGES, recipe.widths)
        part, init = (
            1 - recipe.warm,
            Model(denoiser, model, base.images, base.run),
        )
    for record in train(
        configuration(recipe, images, settings, seed, part), images, out, init=init
    ):
        print(f"{out.name}: {record.images} images, {record.images_per_second:.0f}/s", flush=True)
    return (1 - part) * settings.budget * 1e12


def measure(out: Path, probe: Probe, spent: float) -> Iterator[tuple[float, list[float]]]:
    """MACs and held-out loss of each stage, for each checkpoint of a run."""
    for checkpoint in Run(out).checkpoints():
        model = load_model(checkpoint / "model.safetensors")
        model.denoiser.dtype = torch.bfloat16
        yield (
            spent + model.images * macs(run_config(model)),
            probe.network_loss(model.denoiser, torch.device("cpu")),
        )


def table(results: dict[str, list[list[tuple[float, list[float]]]]]) -> None:
    """The last losses, mean and half the difference of the seeds, and their ratio to the unified
    network of the same density.
    """
    against = "against unified, natural | against unified, 1/3 each"
    headings = f"recipe | stage 1 | stage 2 | stage 3 | {against}"
    print(f"\n| {headings} |\n|---|---|---|---|---|---|")
    ends = {
        name: torch.tensor([curve[-1][1] for curve in curves]) for name, curves in results.items()
    }
    for name, end in ends.items():
        means = [
            f"{m:.4f} ± {s:.4f}"
            for m, s in zip(
                end.mean(0).tolist(), (end.amax(0) - end.amin(0)).div(2).tolist(), strict=True
            )
        ]
        ratios = []
        for base in ("unified, natural", "unified, 1/3 each"):
            ratio = (
                end.mean(0) / ends[base].mean(0) if base in ends else torch.full((3,), torch.nan)
            )
            ratios.append(" / ".join(f"{r - 1:+.1%}" for r in ratio.tolist()))
        print(f"| {name} | {' | '.join(means)} | {' | '.join(ratios)} |")


def draw(results: dict[str, list[list[tuple[float, list[float]]]]], path: Path) -> None:
    """A panel for each stage: held-out loss over MACs, mean of the seeds."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(STAGES), figsize=(12, 4.8), layout="constrained")
    for stage, axes in enumerate(panels):
        for name, curves in results.items():
            spent = torch.tensor([[point[0] for point in curve] for curve in curves]).mean(0) / 1e12
            losses = torch.tensor([[point[1][stage] for point in curve] for curve in curves]).mean(
                0
            )
            axes.plot(
                spent, losses, label=name, linestyle="--" if name.startswith("unified") else "-"
            )
        axes.set(title=f"stage {stage + 1}", xlabel="training MACs (T)", ylabel="held-out loss")
    figure.legend(
        *panels[-1].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    figure.savefig(path)


def main(settings: Settings) -> None:
    """Runs what is missing and reports."""
    images, held_out = halved(load(settings.train)), halved(load(settings.test))
    probe = Probe.draw(held_out, STAGES, SCHEDULES["vp"], conditional=False, seed=0, per_stage=512)
    results: dict[str, list[list[tuple[float, list[float]]]]] = {}
    for name in settings.only or RECIPES:
        results[name] = []
        for seed in settings.seeds:
            out = settings.out / f"{name.replace('/', '-')} {seed}"
            curve = out / "curve.json"
            if not curve.exists():
                spent = run(RECIPES[name], images, settings, seed, out)
                curve.write_text(json.dumps(list(measure(out, probe, spent))))
            results[name].append(json.loads(curve.read_text()))
    table(results)
    draw(results, settings.out / "study.svg")


if __name__ == "__main__":
    main(tyro.cli(Settings))
