"""What a page says about a study."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from multistage_diffusion.config import to_json
from multistage_diffusion.evaluation.estimate import Estimate, over_seeds
from multistage_diffusion.report import headline
from multistage_diffusion.report.chart import Chart, Line
from multistage_diffusion.report.colours import run_look
from multistage_diffusion.report.comparison import differences
from multistage_diffusion.report.numbers import duration, interval, short, short_path
from multistage_diffusion.report.panels import (
    COST_NAMES,
    Panels,
    Table,
    cost_axis,
    loss_axis,
    unit_of,
)
from multistage_diffusion.report.pictures import file_url
from multistage_diffusion.study.curve import Cost, Point
from multistage_diffusion.study.results import ArmResults, Results
from multistage_diffusion.study.stored import load_study
from multistage_diffusion.study.tables import reached_text

__all__ = ["StudySection", "study_section"]


@dataclass(frozen=True)
class StudySection:
    """What the page says about a study."""

    name: str
    headline: str
    about: str
    facts: Sequence[tuple[str, str]]
    curves: Panels | None
    reached: Table
    scores: Table
    costs: Table
    finals: Table | None
    samples: Sequence[tuple[str, str]]
    """Name and picture of each run's samples."""
    differences: Table


def study_section(folder: Path) -> StudySection:
    """Reads a study.

    Raises:
        BadInput: if it has no results yet, or a file is damaged.
    """
    results = load_study(folder)
    study = results.study
    settings = {name: to_json(arm) for name, arm in study.arms.items()}
    grids = [
        grid
        for name in study.arms
        for grid in sorted((folder / "samples").glob(f"{glob.escape(name)}-[0-9]*.png"))
    ]
    return StudySection(
        name=study.name,
        headline=headline.of_study(results),
        about=study.about,
        facts=_facts(results),
        curves=_curves(results) if results.metrics() and results.costs() else None,
        reached=_reached(results),
        scores=_scores(results),
        costs=_costs(results),
        finals=_finals(results),
        samples=[(grid.stem, file_url(grid)) for grid in grids],
        differences=differences(list(settings), list(settings.values())),
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    study, arms = results.study, [arm for arm in results.arms.values() if arm.seeds]
    ends = [points[-1] for arm in arms for found in arm.seeds.values() for points in found.values()]
    facts = [
        ("images", short_path(study.data)),
        ("arms", str(len(study.arms))),
        ("seeds", ", ".join(map(str, results.seeds))),
        ("reference", f"{study.reference}, {study.images:,} images"),
    ]
    if ends:
        facts.append(("training MACs of a run", short(max(point.macs for point in ends))))
        facts.append(("longest run", duration(max(point.seconds for point in ends))))
    return facts


def _curves(results: Results) -> Panels:
    """Scores over what they cost, a chart for each metric, an arm a colour."""
    metrics = results.metrics()
    choices = {
        COST_NAMES[cost]: [_chart(results, metric, cost).svg() for metric in metrics]
        for cost in results.costs()
    }
    legend = [(n, run_look(k)) for k, n in enumerate(results.arms) if n in _measured(results)]
    legend.append(("single seeds", "ink faint thin"))
    return Panels("scores", choices, legend, _points_table(results))


def _chart(results: Results, metric: str, cost: Cost) -> Chart:
    curves = [
        (k, points[metric])
        for k, arm in enumerate(results.arms.values())
        for points in arm.seeds.values()
        if points.get(metric)
    ]
    spent = [float(getattr(point, cost)) for _, curve in curves for point in curve]
    unit, label = unit_of(cost, max(spent))
    lines = [_line(curve, cost, unit, f"{run_look(k)} faint thin") for k, curve in curves]
    for k, arm in enumerate(results.arms.values()):
        if mean := arm.mean(metric):
            lines.append(_line(mean, cost, unit, run_look(k), points=True))
    log = "denoising" not in metric
    return Chart(
        title=metric,
        x=cost_axis(label, [value / unit for value in spent], log=True),
        y=loss_axis("", [value for line in lines for value in line.y], log=log),
        about=f"{headline.metric_words(metric)} over {label}. {_ends(results, metric)}",
        lines=lines,
    )


def _line(
    curve: Sequence[Point], cost: Cost, unit: float, look: str, *, points: bool = False
) -> Line:
    x = [getattr(point, cost) / unit for point in curve]
    return Line(x=x, y=[point.value for point in curve], look=look, points=points)


def _ends(results: Results, metric: str) -> str:
    found = ((name, arm.mean(metric)) for name, arm in results.arms.items())
    ends = ", ".join(f"{name} {curve[-1].value:.4g}" for name, curve in found if curve)
    return f"Means over seeds at the end: {ends}."


def _points_table(results: Results) -> Table:
    metrics = results.metrics()
    rows = [row for arm in results.arms.values() for row in _point_rows(arm, metrics)]
    return Table(["arm", "images", "MACs", "time", *metrics], rows, "Means over seeds")


def _point_rows(arm: ArmResults, metrics: Sequence[str]) -> list[list[str]]:
    curves = {metric: {p.images: p for p in arm.mean(metric)} for metric in metrics}
    points = {images: point for curve in curves.values() for images, point in curve.items()}
    return [
        [arm.name, f"{images:,}", short(points[images].macs), duration(points[images].seconds)]
        + [f"{curves[m][images].value:.4g}" if images in curves[m] else "" for m in metrics]
        for images in sorted(points)
    ]


def _reached(results: Results) -> Table:
    """What part of the reference's whole cost each arm needs to its final score."""
    names = [name for name in _measured(results) if name != results.study.reference]
    rows = [
        [metric, COST_NAMES[cost]]
        + [
            reached_text(results.reach(name, metric, cost), partial(_with_interval, form=".2f"))
            for name in names
        ]
        for cost in results.costs()
        if cost != "images"
        for metric in results.metrics()
        if results.reach(results.study.reference, metric, cost)
    ]
    caption = f"Part of the cost of {results.study.reference}, with 95 % intervals over seeds"
    return Table(["metric", "cost", *names], rows if names else [], caption)


def _measured(results: Results) -> list[str]:
    """The arms of which something was measured."""
    return [name for name, arm in results.arms.items() if any(arm.seeds.values())]


def _scores(results: Results) -> Table:
    names = _measured(results)
    rows = [
        [metric, *(_text(list(results.arms[name].final(metric).values())) for name in names)]
        for metric in results.metrics()
    ]
    return Table(["metric", *names], rows, "Scores at the end, with 95 % intervals over seeds")


def _text(values: Sequence[float]) -> str:
    return _with_interval(over_seeds(values)) if values else "-"


def _with_interval(found: Estimate, form: str = ".4g") -> str:
    spread = f" ({interval(found.interval, form)})" if found.interval else ""
    return f"{found.value:{form}}{spread}"


def _costs(results: Results) -> Table:
    rows = [
        [name, arm.arm.about, f"{arm.parameters:,}", " / ".join(map(short, arm.macs_per_stage))]
        for name, arm in results.arms.items()
    ]
    return Table(["arm", "", "parameters", "forward MACs by stage"], rows)


def _finals(results: Results) -> Table | None:
    """Measurements of finished models beside their curves, means over seeds."""
    rows = [[*key, _text(numbers)] for key, numbers in results.finished().items()]
    return Table(["arm", "", "metric", "score"], rows, "Finished models") if rows else None
