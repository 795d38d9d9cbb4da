"""The figures of a study, as SVG text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from multistage_diffusion.study.curve import Cost, Point
from multistage_diffusion.study.results import ArmResults, Results
from multistage_diffusion.svg import svg_text

__all__ = ["curves_figure", "sampling_figure"]

COLOURS = ("#555555", "#0b6e99", "#d9730d", "#6b4f9e", "#3f8f4f", "#b8405e", "#7a6a2b", "#111111")
LABELS: dict[Cost, str] = {
    "macs": "training multiply-accumulates",
    "images": "training images",
    "seconds": "seconds of training",
    "processor_seconds": "processor seconds of training",
}
MOST_COLUMNS = 3


def curves_figure(results: Results, metrics: Sequence[str], cost: Cost) -> str:
    """Scores over what they cost, a panel for each metric: each seed thin, their mean thick."""
    columns = min(len(metrics), MOST_COLUMNS)
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.1 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, metric in zip(panels, metrics, strict=False):
        _panel(axes, results, metric, cost)
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()
    entries = panels[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=4, frameon=False)
    return svg_text(figure)


def _panel(axes: Axes, results: Results, metric: str, cost: Cost) -> None:
    for colour, (name, arm) in zip(_colours(results), results.arms.items(), strict=True):
        curves = [found[metric] for found in arm.seeds.values() if found.get(metric)]
        for curve in curves:
            x, y = _coordinates(curve, cost)
            axes.plot(x, y, color=colour, lw=0.8, alpha=0.45)
            if len(curves) == 1:
                axes.fill_between(x, *_bounds(curve), color=colour, alpha=0.12, lw=0)
        if curves:
            x, y = _coordinates(arm.mean(metric), cost)
            axes.plot(x, y, color=colour, lw=2, marker="o", ms=3, label=name)
    axes.set(title=metric, xlabel=LABELS[cost], xscale="log")
    if "denoising" not in metric:
        axes.set_yscale("log")


def _coordinates(curve: Sequence[Point], cost: Cost) -> tuple[list[float], list[float]]:
    return [float(getattr(point, cost)) for point in curve], [point.value for point in curve]


def _bounds(curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    pairs = [point.interval or (point.value, point.value) for point in curve]
    return [low for low, _ in pairs], [high for _, high in pairs]


def _colours(results: Results) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(len(results.arms))]


def sampling_figure(results: Results, metric: str) -> str:
    """Scores of finished models over the multiply-accumulates of a sample, for each solver."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for colour, arm in zip(_colours(results), results.arms.values(), strict=True):
        for style, (solver, points) in zip(
            ("-", "--", ":", "-."), _by_solver(arm, metric).items(), strict=False
        ):
            macs, values = zip(*sorted(points), strict=True)
            label = f"{arm.name}, {solver}"
            axes.plot(macs, values, ls=style, marker="o", ms=3, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="multiply-accumulates of a sample", ylabel=metric)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return svg_text(figure)


def _by_solver(arm: ArmResults, metric: str) -> Mapping[str, list[tuple[float, float]]]:
    """Pairs of cost and mean score over seeds, for each number of steps of each solver."""
    values: dict[tuple[str, float], list[float]] = {}
    for found in arm.finals.values():
        for result in found:
            if result["metric"] == metric and "cost" in result:
                key = result["options"]["solver"], _macs(result)
                values.setdefault(key, []).append(result["value"])
    curves: dict[str, list[tuple[float, float]]] = {}
    for (solver, macs), scores in values.items():
        curves.setdefault(solver, []).append((macs, float(np.mean(scores))))
    return curves


def _macs(result: Mapping[str, Any]) -> float:
    """Of a sample; results of version 0.1.0 did not hold it."""
    cost = result["cost"]
    if "macs" in cost:
        return float(cost["macs"])
    calls = zip(cost["evaluations_per_stage"], cost["stages"], strict=True)
    return float(sum(number * stage["macs"] for number, stage in calls))
