"""The report's figures, as SVG text."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from multistage_diffusion.report.colours import BAND, GRID, INK, stage_colour
from multistage_diffusion.stages import StagesFile
from multistage_diffusion.svg import svg_text
from multistage_diffusion.training.learned_weight import LearnedCurve
from multistage_diffusion.training.monitoring.records import Record, comparable

__all__ = ["learned_figure", "loss_figure", "stages_figure"]

BIN = 8  # losses in a point


def stages_figure(stages: StagesFile) -> str:
    """The stages, the intervals of their boundaries, and the curves they were found from.

    Over the noise level.

    Args:
        stages: content of a stages file with curves.
    """
    cosines = stages.curves.cosines
    sigma = np.array(stages.curves.sigma)
    edges = [sigma[0], *stages.boundaries, sigma[-1]]
    figure = Figure(figsize=(8, 6 if cosines else 3.6), layout="constrained")
    axes = figure.subplots()
    if cosines:
        _cosines(figure, axes, sigma, np.array(cosines))
        for edge in stages.boundaries:
            axes.axhline(edge, color="white", lw=1, ls="--")
            axes.axvline(edge, color="white", lw=1, ls="--")
    else:
        _agreement(figure, axes, stages)
    for stage in range(len(edges) - 1):
        _mark_stage(axes, stage, edges, shade=0.0 if cosines else 0.12)
    for low, high in stages.ci95:
        axes.axvspan(low, high, color=BAND, alpha=0.35, lw=0)
    axes.set(xscale="log", xlabel="noise level sigma", xlim=(sigma[0], sigma[-1]))
    return svg_text(figure)


def _agreement(figure: Figure, axes: Axes, stages: StagesFile) -> None:
    curves = stages.curves
    low, high = curves.low_noise_agreement, curves.high_noise_agreement
    for values, limit, style in ((low, "clean", "-"), (high, "mean", "--")):
        if values:
            label = f"agreement with the {limit} image"
            axes.plot(curves.sigma, values, color=INK, ls=style, label=label)
    if stages.alpha is not None:
        axes.axhline(stages.alpha, color=GRID, lw=0.8, ls=":")
    axes.set(ylabel="share of pixels", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _cosines(
    figure: Figure, axes: Axes, sigma: NDArray[np.float64], cosines: NDArray[np.float64]
) -> None:
    shown = axes.pcolormesh(sigma, sigma, cosines, shading="nearest", cmap="viridis")
    axes.set(yscale="log", ylabel="noise level sigma", ylim=(sigma[0], sigma[-1]))
    figure.colorbar(shown, label="cosine of the gradients")


def loss_figure(records: Sequence[Record]) -> str:
    """Loss over images, a panel for each stage.

    Of training batches, and on the probe of averaged weights and of the optimal denoiser.
    """
    records = comparable(records)
    count = len(records[0].probe_loss)
    figure = Figure(figsize=(max(4.5, 3.3 * count), 3.4), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    images = [record.images for record in records]
    for stage, axes in enumerate(panels):
        _loss_panel(axes, images, records, stage)
    panels[0].set_ylabel("weighted loss")
    entries = panels[-1].get_legend_handles_labels()
    figure.legend(
        *entries, loc="outside lower center", ncols=min(count, 3), frameon=False, fontsize=8
    )
    return svg_text(figure)


def _loss_panel(axes: Axes, images: Sequence[int], records: Sequence[Record], stage: int) -> None:
    colour = stage_colour(stage)
    training = [np.nan if (loss := record.loss[stage]) is None else loss for record in records]
    marker = "o" if len(images) == 1 else None
    axes.plot(
        images, training, color=colour, alpha=0.35, lw=1, marker=marker, label="training batches"
    )
    axes.plot(
        images,
        [record.probe_loss[stage] for record in records],
        color=colour,
        marker=marker,
        label="averaged weights, probe",
    )
    axes.axhline(
        records[-1].optimal_loss[stage], color=INK, ls="--", label="optimal denoiser, probe"
    )
    if records[-1].held_out_loss:
        held = [
            record.held_out_loss[stage] if record.held_out_loss else np.nan for record in records
        ]
        axes.plot(
            images, held, color=colour, ls="-.", marker=marker, label="averaged weights, held out"
        )
    if records[-1].zero_loss:
        axes.axhline(
            records[-1].zero_loss[stage], color=GRID, lw=0.8, ls=":", label="untrained network"
        )
    axes.set(
        title=f"stage {stage + 1}",
        xlabel="images",
        yscale="log",
        ylim=_limits(training, records, stage),
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _limits(
    training: Sequence[float], records: Sequence[Record], stage: int
) -> tuple[float, float]:
    """Limits that leave room for the curves.

    An optimum that is nearly zero, as in memorised data, does not squeeze them flat.
    """
    seen = np.array([*training, *(record.probe_loss[stage] for record in records)])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    if not len(seen):
        return 1e-3, 1.0
    least = seen.min()
    if records[-1].optimal_loss[stage] < least:  # not if it is no number
        least = max(records[-1].optimal_loss[stage], least / 100)
    return float(least / 1.5), float(seen.max() * 1.5)


def learned_figure(
    learned: LearnedCurve, boundaries: Sequence[float], training: Sequence[float | None]
) -> str:
    """The learned loss over the noise level, with the stages.

    Beside it are losses of training and on the probe.

    Args:
        learned: content of a run's ``uncertainty.json``.
        boundaries: noise levels between the stages.
        training: mean loss of the training batches in each stage, None where there is none.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes, edges = figure.subplots(), [learned.sigma[0], *boundaries, learned.sigma[-1]]
    axes.plot(learned.sigma, learned.loss, color=INK, label="learned, exp u(sigma)")
    sigma, losses = np.array(learned.probe.sigma), np.array(learned.probe.loss)
    stage_of = np.searchsorted(boundaries, sigma, side="right")
    for stage, loss in enumerate(training):
        colour = stage_colour(stage)
        level, mean = (_in_bins(values[stage_of == stage]) for values in (np.log(sigma), losses))
        axes.plot(np.exp(level), mean, "o", ms=5, color=colour, label="averaged weights, probe")
        axes.plot(
            edges[stage : stage + 2],
            [np.nan if loss is None else loss] * 2,
            color=colour,
            label="training batches, mean",
        )
        _mark_stage(axes, stage, edges)
    axes.set(
        xscale="log",
        xlabel="noise level sigma",
        xlim=(edges[0], edges[-1]),
        yscale="log",
        ylabel="weighted loss",
    )
    axes.legend(
        *(entries[:3] for entries in axes.get_legend_handles_labels()), frameon=False, fontsize=8
    )
    return svg_text(figure)


def _in_bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of some neighbouring values at a time."""
    return np.array(
        [part.mean() for part in np.array_split(values, max(1, len(values) // BIN)) if len(part)]
    )


def _mark_stage(axes: Axes, stage: int, edges: Sequence[float], shade: float = 0.12) -> None:
    """The span of a stage and its name above it.

    On an axis that is logarithmic from the first edge to the last.
    """
    start, stop, colour = edges[stage], edges[stage + 1], stage_colour(stage)
    axes.axvspan(start, stop, color=colour, alpha=shade, lw=0)
    middle = np.log(start * stop / edges[0] ** 2) / np.log(edges[-1] / edges[0]) / 2
    axes.text(
        middle, 1.03, f"stage {stage + 1}", ha="center", color=colour, transform=axes.transAxes
    )
