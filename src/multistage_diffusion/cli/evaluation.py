"""What ``multistage evaluate`` records, prints and draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.cli.reading import report_reading
from multistage_diffusion.cli.terminal import print_line, print_table, print_warning
from multistage_diffusion.data import Images
from multistage_diffusion.data.png import grid_image, save_png, shown_bands
from multistage_diffusion.evaluation.denoising import Denoising
from multistage_diffusion.evaluation.estimate import Estimate, over_seeds
from multistage_diffusion.evaluation.memorisation import measure_memorisation
from multistage_diffusion.evaluation.suite import Suite
from multistage_diffusion.run import Run
from multistage_diffusion.stages import Stages

__all__ = [
    "print_caveats",
    "print_cost",
    "print_denoising",
    "print_reading",
    "print_values",
    "summary",
    "write_pairs",
]

FEW_IMAGES = 2000
PAIRS = 32


def summary(estimates: list[Estimate]) -> dict[str, Any]:
    """Value and interval as JSON: over seeds if there are several estimates, else over images."""
    values = [estimate.value for estimate in estimates]
    found = over_seeds(values) if len(values) > 1 else estimates[0]
    interval = list(found.interval) if found.interval else None
    return {
        "value": found.value,
        "interval": interval,
        "interval_over": "seeds" if len(values) > 1 else "images",
        **({"values": values} if len(values) > 1 else {}),
    }


def print_reading(folder: str, images: Images) -> None:
    """Prints what was changed in generated images as they were read."""
    report_reading(folder, images)
    if images.resized:
        size = "x".join(map(str, images.shape[1:]))
        print_warning(f"{folder}: {images.resized} images were resized to {size} (--size)")


def print_caveats(suite: Suite, count: int) -> None:
    """Prints which metrics were left out, and whether the images are too few.

    Args:
        suite: what was measured.
        count: number of generated images.
    """
    for reason in suite.skipped:
        print_warning(f"left out: {reason}")
    if suite.options.suite == "full" and suite.options.inception is None:
        print_warning(
            "left out: FID, KID and Inception Score need Inception's weights, --inception FILE"
        )
    if count < FEW_IMAGES:
        print_warning(
            f"{count} images are few: Frechet distances and MIND grow as images get fewer; "
            "compare only numbers from the same number of images"
        )


def print_values(results: Sequence[dict[str, Any]]) -> None:
    """Prints each number with its interval, and what it was measured on."""
    for result in results:
        print_line(f"{result['metric']} = {result['value']:.4f}{_interval(result)}")
    first = results[0]
    seeds = f", seeds {' '.join(map(str, first['seeds']))}" if "seeds" in first else ""
    generated = "reconstructed" if "autoencoder" in first else "generated"
    real = f"{first['data']['images']} real images"
    print_line(f"{first['images']} {generated} against {real}{seeds}")


def _interval(result: dict[str, Any]) -> str:
    if result["interval"] is None:
        return ""
    low, high = result["interval"]
    return f"  ({low:.4f} to {high:.4f}, 95 % over {result['interval_over']})"


def print_cost(about: dict[str, Any]) -> None:
    """Prints what a model costs in each stage."""
    cost = about.get("cost", {"stages": [], "evaluations_per_stage": []})
    stages = zip(cost["stages"], cost["evaluations_per_stage"], strict=True)
    for number, (stage, calls) in enumerate(stages, 1):
        macs = f"{stage['macs'] / 1e6:,.1f} M MACs"
        print_line(
            f"stage {number}: {stage['parameters']:,} parameters, {macs}, {calls} evaluations"
        )
    if "macs" in cost:
        decoding = cost.get("decoding_macs", 0)
        part = f", {decoding / 1e6:,.1f} M of them to decode it" if decoding else ""
        print_line(f"a sample: {cost['macs'] / 1e6:,.1f} M MACs{part}")


def print_denoising(found: Denoising, stages: Stages) -> None:
    """Prints the losses of a model by stage and by level."""
    print_line(f"denoising = {_with_margin(found.mean)} (95 %), over the schedule's density")
    rows = []
    for stage, loss in enumerate(found.stages):
        low, high = stages.bounds(stage)
        levels = f"{low:.4g} .. {high:.4g}"
        optimal, zero = found.optimal[stage], found.zero[stage]
        rows.append([str(stage + 1), levels, _with_margin(loss), f"{optimal:.4f}", f"{zero:.4f}"])
    print_table(["stage", "sigma", "loss", "optimal denoiser", "zeros"], rows)
    print_table(
        ["sigma", "loss", "optimal denoiser"],
        [[f"{at.sigma:.3g}", _with_margin(at.loss), f"{at.optimal:.4f}"] for at in found.levels],
    )


def _with_margin(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ± {estimate.interval[1] - estimate.value:.4f}"


def write_pairs(run: Run, suite: Suite, generated: Tensor) -> Path:
    """Draws the generated images nearest to real ones, each beside its nearest real image."""
    name = dict(suite.options.wanted)["memorisation"]
    found = measure_memorisation(
        suite.features(generated, name), suite.real[name], suite.held_out.get(name), PAIRS
    )
    pairs = torch.stack([generated[found.suspects], suite.images[found.originals]], 1).flatten(0, 1)
    save_png(run.nearest_pairs, grid_image(shown_bands(pairs), columns=8, group=2))
    return run.nearest_pairs
