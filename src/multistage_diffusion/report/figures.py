"""The report's figures, as SVG text."""

from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multistage_diffusion.training.records import Record

__all__ = ["loss_figure", "stages_figure"]

COLOURS = ("#0b6e99", "#d9730d", "#6b4f9e", "#3f8f4f", "#b8405e", "#7a6a2b")


def stages_figure(stages: dict[str, Any]) -> str:
    """The agreement with both limits over the noise level, the stages they give and the intervals of the boundaries.

    Args:
        stages: contents of a stages file with curves.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    curves = stages["curves"]
    sigma = np.array(curves["sigma"])
    edges = [sigma[0], *stages["boundaries"], sigma[-1]]
    for stage in range(len(edges) - 1):
        axes.axvspan(edges[stage], edges[stage + 1], color=COLOURS[stage % len(COLOURS)], alpha=0.12, lw=0)
        middle = np.sqrt(edges[stage] * edges[stage + 1])
        axes.text(middle, 1.04, f"stage {stage + 1}", ha="center", color=COLOURS[stage % len(COLOURS)])
    for low, high in stages.get("ci95", []):
        axes.axvspan(low, high, color="#333333", alpha=0.35, lw=0)
    axes.plot(sigma, curves["low_noise_agreement"], color="#111111", label="agreement with the clean image")
    axes.plot(sigma, curves["high_noise_agreement"], color="#111111", ls="--", label="agreement with the mean image")
    axes.axhline(stages["parameters"]["alpha"], color="#999999", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel="noise level sigma", ylabel="share of pixels", ylim=(0, 1.12), xlim=(sigma[0], sigma[-1]))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _svg(figure)


def loss_figure(records: Sequence[Record]) -> str:
    """Loss over images, a panel for each stage: training, averaged weights on the probe, optimal denoiser on the probe."""
    count = len(records[0].probe_loss)
    figure = Figure(figsize=(max(4.5, 3.3 * count), 3.0), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    images = [record.images for record in records]
    for stage, axes in enumerate(panels):
        _loss_panel(axes, images, records, stage)
    panels[0].set_ylabel("weighted loss")
    panels[-1].legend(frameon=False, fontsize=8, loc="upper right")
    return _svg(figure)


def _loss_panel(axes: Axes, images: Sequence[int], records: Sequence[Record], stage: int) -> None:
    colour = COLOURS[stage % len(COLOURS)]
    training = [np.nan if (loss := record.loss[stage]) is None else loss for record in records]
    marker = "o" if len(images) == 1 else None
    axes.plot(images, training, color=colour, alpha=0.35, lw=1, marker=marker, label="training batches")
    axes.plot(
        images, [record.probe_loss[stage] for record in records], color=colour, marker=marker, label="averaged weights, probe"
    )
    axes.plot(
        images, [record.optimal_loss[stage] for record in records], color="#111111", ls="--", label="optimal denoiser, probe"
    )
    axes.set(title=f"stage {stage + 1}", xlabel="images", yscale="log", ylim=_limits(training, records, stage))


def _limits(training: Sequence[float], records: Sequence[Record], stage: int) -> tuple[float, float]:
    """Room for the curves; an optimum that is nearly zero, as in memorised data, does not squeeze them flat."""
    seen = np.array([*training, *(record.probe_loss[stage] for record in records)])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    if not len(seen):
        return 1e-3, 1.0
    least = min(seen.min(), max(records[-1].optimal_loss[stage], seen.min() / 100))
    return float(least / 1.5), float(seen.max() * 1.5)


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
