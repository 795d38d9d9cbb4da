"""The results of a study as Markdown and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from multistage_diffusion.evaluation.estimate import Estimate, over_seeds
from multistage_diffusion.study.curve import Cost
from multistage_diffusion.study.results import ArmResults, Results

__all__ = ["as_json", "as_markdown", "reached_text"]

COST_NAMES: dict[Cost, str] = {
    "macs": "MACs",
    "seconds": "Wall-clock time",
    "processor_seconds": "Processor time",
}


def as_markdown(results: Results, figures: Mapping[str, str]) -> str:
    """A page with all tables.

    Args:
        results: of the study.
        figures: paths of figures by title, relative to the page.
    """
    study = results.study
    parts = [
        f"# {study.name}",
        study.about,
        f"Seeds: {', '.join(map(str, results.seeds))}. The reference is {study.reference}. "
        "Intervals are 95 %, over seeds (Student's t), missing where there is one seed.",
        "## Cost",
        _table(_cost_headings(), [_cost_row(arm) for arm in results.arms.values() if arm.seeds]),
        "## Scores at the end",
        _table(["metric", *_begun(results)], _score_rows(results)),
        f"Divided by those of {study.reference}, seed by seed:",
        _table(["metric", *_others(results)], _relative_rows(results)),
        *_reach_parts(results),
        *_final_parts(results),
        *(f"## {title}\n\n![{title}]({path})" for title, path in figures.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _begun(results: Results) -> list[str]:
    return [name for name, arm in results.arms.items() if arm.seeds]


def _others(results: Results) -> list[str]:
    return [name for name in _begun(results) if name != results.study.reference]


def _cost_headings() -> list[str]:
    return ["arm", "", "seeds", "parameters", "forward MACs by stage", "training MACs of an image"]


def _cost_row(arm: ArmResults) -> list[str]:
    by_stage = " / ".join(f"{macs / 1e6:,.1f} M" for macs in arm.macs_per_stage)
    mean = f"{arm.training_macs / 1e6:,.1f} M" if arm.training_macs else "-"
    seeds = str(len(arm.seeds))
    return [arm.name, arm.arm.about, seeds, f"{arm.parameters:,}", by_stage, mean]


def _score_rows(results: Results) -> list[list[str]]:
    def cell(name: str, metric: str) -> str:
        values = list(results.arms[name].final(metric).values())
        return _text(over_seeds(values)) if values else "-"

    names = _begun(results)
    return [[metric, *(cell(name, metric) for name in names)] for metric in results.metrics()]


def _relative_rows(results: Results) -> list[list[str]]:
    names = _others(results)
    cells = {
        metric: [results.relative(name, metric) for name in names] for metric in results.metrics()
    }
    return [
        [metric, *(_text(found) if found else "-" for found in row)]
        for metric, row in cells.items()
    ]


def _reach_parts(results: Results) -> list[str]:
    """A table for each kind of cost."""
    parts = []
    for cost in (cost for cost in results.costs() if cost in COST_NAMES):
        rows = [
            [metric, *(reached_text(results.reach(name, metric, cost)) for name in _begun(results))]
            for metric in results.metrics()
            if results.reach(results.study.reference, metric, cost)
        ]
        if any(cell != "-" for row in rows for cell in row[1:]):
            parts += [
                f"## {COST_NAMES[cost]} to the reference's final score",
                "As a part of all that the reference spent. "
                "Scores are the monotone fit of each curve, so that no lucky point counts.",
                _table(["metric", *_begun(results)], rows),
            ]
    return parts


def reached_text(
    by_seed: Mapping[int, float | None], text: Callable[[Estimate], str] | None = None
) -> str:
    """Mean and interval if every seed reached the score; else how many did.

    Args:
        by_seed: the part that each seed needs; None if it does not reach the score.
        text: the form of the mean and its interval. Default: that of the tables.
    """
    values = [value for value in by_seed.values() if value is not None]
    if not by_seed or not values:
        return "not reached" if by_seed else "-"
    if len(values) < len(by_seed):
        return f"{len(values)} of {len(by_seed)} seeds"
    return (text or _text)(over_seeds(values))


def _final_parts(results: Results) -> list[str]:
    """A table for each tag of measurements of finished models."""
    parts, finished = list[str](), results.finished()
    for tag in dict.fromkeys(tag for _, tag, _ in finished):
        rows = [
            [arm, metric, _text(over_seeds(values))]
            for (arm, tagged, metric), values in finished.items()
            if tagged == tag
        ]
        parts += [f"## Finished models, {tag}", _table(["arm", "metric", "score"], rows)]
    return parts


def _text(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.4g}"
    reach = estimate.interval[1] - estimate.value
    return f"{estimate.value:.4g} ± {reach:.2g}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(results: Results) -> dict[str, Any]:
    """All curves and measurements, for other programs."""
    return {
        "name": results.study.name,
        "reference": results.study.reference,
        "arms": {name: _arm_json(results, arm) for name, arm in results.arms.items()},
    }


def _arm_json(results: Results, arm: ArmResults) -> dict[str, Any]:
    reach = {metric: results.reach(arm.name, metric) for metric in results.metrics()}
    return {
        "about": arm.arm.about,
        "parameters": arm.parameters,
        "macs_per_stage": arm.macs_per_stage,
        "training_macs": arm.training_macs,
        "curves": {
            str(seed): {metric: [asdict(point) for point in points] for metric, points in c.items()}
            for seed, c in arm.seeds.items()
        },
        "macs_to_reach_reference": {
            metric: {str(seed): share for seed, share in by_seed.items()}
            for metric, by_seed in reach.items()
            if by_seed
        },
        "finished_models": {str(seed): found for seed, found in arm.finals.items()},
    }
