"""The figure of stages, as SVG text that stands alone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from multistage_diffusion.report.colours import BAND, GRID, INK, stage_colour
from multistage_diffusion.stages import StagesFile
from multistage_diffusion.svg import svg_text

__all__ = ["stages_figure"]


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
