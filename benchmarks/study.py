"""Which decoders, shares and batches learn most from the same number of multiply-accumulates.

    python benchmarks/study.py TRAIN TEST --out FOLDER [--budget 16] [--seeds 0 1] [--only NAME ...]

Small networks are trained on images of 32x32 halved to 16x16, until each run has spent the same
number of multiply-accumulates (MACs). Six times in each run the averaged weights are measured on
held-out images: the weighted loss in each of three stages, with the same images, noise and noise
levels for all. An interrupted study continues. The script prints a table in Markdown and writes
``study.svg``; the report is ``study.md``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
import tyro
from matplotlib.axes import Axes

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import mean_training_macs, stage_costs
from multistage_diffusion.data import Images, load
from multistage_diffusion.interop import warm_start
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.preconditioning import PreconditioningName
from multistage_diffusion.presets import PRESETS, Preset, preset_model
from multistage_diffusion.run import Run
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import train
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import DataInfo, RunConfig, run_config
from multistage_diffusion.training.monitoring.probe import Probe

mpl.use("svg")
STAGES = Stages((2.51, 7.40))
POINTS = 6
BASELINES = ("unified, natural", "unified, 1/3 each")

Point = tuple[float, list[float]]
"""MACs spent, and the loss of each stage."""
Curves = Mapping[str, Sequence[Sequence[Point]]]
"""The points of each run, by recipe and seed."""


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
    """A way to train."""

    widths: tuple[int, ...] = (32,)
    """Width of each decoder."""
    shares: Literal["natural", "uniform"] | tuple[float, ...] = "natural"
    batches: Literal["mixed", "single-stage"] = "mixed"
    warm: float = 0.0
    """Part of the budget that is spent on the unified network of a warm start."""
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
    """Images of half the size: each two by two pixels become their mean."""
    mean = torch.nn.functional.avg_pool2d(images.pixels[:].float(), 2)
    return Images(mean.round().to(torch.uint8), source=f"{images.source} at half the size")


def preset(recipe: Recipe, settings: Settings, seed: int) -> Preset:
    """The preset ``small`` with the network and training settings of a recipe."""
    several = len(recipe.widths) > 1
    return replace_settings(
        PRESETS["small"],
        preconditioning=settings.preconditioning,
        decoder_widths=recipe.widths,
        seed=seed,
        shares=recipe.shares,
        share_boundaries=() if several else STAGES.boundaries,
        batches=recipe.batches,
        learning_rates=recipe.rates,
    )


def configuration(
    recipe: Recipe, images: Images, settings: Settings, seed: int, part: float = 1.0
) -> RunConfig:
    """A run that spends a part of the budget."""
    chosen = preset(recipe, settings, seed)
    stages = STAGES if len(recipe.widths) > 1 else Stages(())
    sigma_data = round(images.standard_deviation, 4)
    config = RunConfig(
        model=preset_model(chosen, stages, images.shape, sigma_data=sigma_data),
        training=chosen.training,
        data=DataInfo(path="", fingerprint=images.fingerprint, images=len(images)),
        init="warm" if recipe.warm else "",
    )
    return with_length(config, int(part * settings.budget * 1e12 / macs(config)))


def with_length(config: RunConfig, images: int) -> RunConfig:
    """A run of this length in images, with all checkpoints that the study measures."""
    interval = images // POINTS
    training = replace_settings(
        config.training,
        images=images,
        record_images=interval,
        checkpoint_images=interval,
        keep_every=1,
    )
    return replace(config, training=training)


def macs(config: RunConfig) -> float:
    """Training MACs of a run for an image."""
    return mean_training_macs(stage_costs(config.model), stage_shares(config))


def train_recipe(recipe: Recipe, images: Images, settings: Settings, seed: int, out: Path) -> float:
    """Trains, and returns the MACs that were spent on the network of a warm start."""
    init = warm_model(recipe, images, settings, seed, out) if recipe.warm else None
    config = configuration(recipe, images, settings, seed, 1 - recipe.warm)
    for record in train(config, images, out, init=init):
        print(f"{out.name}: {record.images} images, {record.images_per_second:.0f}/s", flush=True)
    return recipe.warm * settings.budget * 1e12


def warm_model(recipe: Recipe, images: Images, settings: Settings, seed: int, out: Path) -> Model:
    """The multi-stage network that begins with the weights of a unified one, which is trained."""
    unified = Recipe(shares=recipe.shares)
    config = configuration(unified, images, settings, seed, recipe.warm)
    run = Run(out.with_name(f"{out.name} (first part)"))
    for _ in train(config, images, run.path):
        pass
    base = load_model(run.model)
    denoiser, model = warm_start(base.denoiser, base.config, STAGES, recipe.widths)
    return Model(denoiser, model, base.images, base.run)


def measure(run: Run, probe: Probe, spent: float) -> Iterator[Point]:
    """The points of a run, one for each checkpoint.

    Args:
        run: the run.
        probe: what the loss is measured on.
        spent: MACs spent before the run began.
    """
    for checkpoint in run.checkpoints():
        model = load_model(checkpoint / "model.safetensors")
        model.denoiser.dtype = torch.bfloat16
        losses = probe.network_loss(model.denoiser, torch.device("cpu"))
        yield spent + model.images * macs(run_config(model)), losses


def curve(
    name: str, seed: int, images: Images, probe: Probe, settings: Settings
) -> Sequence[Point]:
    """The points of the run of a recipe, which is trained unless that has been done."""
    out = settings.out / f"{name.replace('/', '-')} {seed}"
    file = out / "curve.json"
    if not file.exists():
        spent = train_recipe(RECIPES[name], images, settings, seed, out)
        file.write_text(json.dumps(list(measure(Run(out), probe, spent))))
    points: Sequence[Point] = json.loads(file.read_text())
    return points


def mean_and_spread(values: torch.Tensor) -> list[str]:
    """The mean over the seeds, and half the difference of the largest and smallest, in words.

    Args:
        values: ``[seeds, stages]``.
    """
    means = values.mean(0).tolist()
    spreads = (values.amax(0) - values.amin(0)).div(2).tolist()
    return [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means, spreads, strict=True)]


def changes(last: torch.Tensor, base: torch.Tensor | None) -> str:
    """How the loss of each stage compares to that of a unified network, in words.

    Args:
        last: losses at the end of a recipe's runs, ``[seeds, stages]``.
        base: those of the unified network, if it was trained.
    """
    if base is None:
        return ""
    return " / ".join(f"{ratio - 1:+.1%}" for ratio in (last.mean(0) / base.mean(0)).tolist())


def print_table(curves: Curves) -> None:
    """Prints the losses at the end, and how they compare to the unified networks."""
    headings = " | ".join(f"against {name}" for name in BASELINES)
    print(f"\n| recipe | stage 1 | stage 2 | stage 3 | {headings} |\n|---|---|---|---|---|---|")
    last = {name: torch.tensor([points[-1][1] for points in runs]) for name, runs in curves.items()}
    for name, losses in last.items():
        compared = [changes(losses, last.get(baseline)) for baseline in BASELINES]
        print(f"| {name} | {' | '.join([*mean_and_spread(losses), *compared])} |")


def draw(curves: Curves, path: Path) -> None:
    """Draws held-out loss over MACs, a panel for each stage; means over the seeds."""
    figure, panels = plt.subplots(1, len(STAGES), figsize=(12, 4.8), layout="constrained")
    for stage, axes in enumerate(panels):
        draw_panel(axes, curves, stage)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path)


def draw_panel(axes: Axes, curves: Curves, stage: int) -> None:
    """Draws the loss of a stage."""
    for name, runs in curves.items():
        spent = torch.tensor([[point[0] for point in points] for points in runs])
        losses = torch.tensor([[point[1][stage] for point in points] for points in runs])
        style = "--" if name.startswith("unified") else "-"
        axes.plot(spent.mean(0) / 1e12, losses.mean(0), label=name, linestyle=style)
    axes.set(title=f"stage {stage + 1}", xlabel="training MACs (T)", ylabel="held-out loss")


def main(settings: Settings) -> None:
    """Trains what has not been trained yet, and reports."""
    images = halved(load(settings.train))
    held_out = halved(load(settings.test))
    probe = Probe.draw(held_out, STAGES, SCHEDULES["vp"], conditional=False, seed=0, per_stage=512)
    curves = {
        name: [curve(name, seed, images, probe, settings) for seed in settings.seeds]
        for name in settings.only or RECIPES
    }
    print_table(curves)
    draw(curves, settings.out / "study.svg")


if __name__ == "__main__":
    main(tyro.cli(Settings))
