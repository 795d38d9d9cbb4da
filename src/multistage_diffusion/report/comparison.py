"""The section of a page that compares several runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from multistage_diffusion.config import to_json
from multistage_diffusion.report import headline
from multistage_diffusion.report.chart import Chart, Line
from multistage_diffusion.report.colours import run_look
from multistage_diffusion.report.curves import costs_of
from multistage_diffusion.report.numbers import duration, interval, short
from multistage_diffusion.report.panels import (
    COST_NAMES,
    Panels,
    Table,
    cost_axis,
    loss_axis,
    unit_of,
)
from multistage_diffusion.report.section import Section, stages_of
from multistage_diffusion.study.curve import Cost
from multistage_diffusion.training.monitoring.records import comparable

__all__ = ["Comparison", "compare", "differences", "short_names"]

ABSENT = "-"


@dataclass(frozen=True)
class Comparison:
    """Several runs beside one another."""

    headline: str
    names: Sequence[str]
    summary: Table
    losses: Panels | None
    """On the probe; None where the losses are not of one kind."""
    differences: Table


def compare(sections: Sequence[Section]) -> Comparison:
    """Several runs beside one another."""
    names = short_names([section.name for section in sections])
    settings = [to_json(section.config) for section in sections]
    results = [section.results for section in sections]
    return Comparison(
        headline.of_runs(names, [_seen(section) for section in sections], results),
        names,
        _summary(names, sections),
        _losses(names, sections),
        differences(names, settings),
    )


def _seen(section: Section) -> int:
    """Images of training so far."""
    return section.records[-1].images if section.records else 0


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of paths, as many of them as tell them apart."""
    parts = [PurePath(name).parts or (name,) for name in names]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def differences(names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Table:
    """The settings, nested, that are not the same everywhere."""
    flat = [dict(_flat(one)) for one in settings]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [[key, *(one.get(key, ABSENT) for one in flat)] for key in keys]
    different = [row for row in rows if len(set(row[1:])) > 1]
    return Table(["setting", *names], different)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _as_text(value)


def _as_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_as_text, value)) if isinstance(value, list) else str(value)


def _summary(names: Sequence[str], sections: Sequence[Section]) -> Table:
    headings = ["run", "stages", "parameters", "images", "time", "training MACs"]
    headings += ["probe loss by stage", "score", "95 % interval"]
    rows = [_summary_row(*pair) for pair in zip(names, sections, strict=True)]
    return Table(headings, rows)


def _summary_row(name: str, section: Section) -> list[str]:
    model = section.config.model
    start = [name, str(len(model.boundaries) + 1), f"{section.parameters:,}"]
    last = section.records[-1] if section.records else None
    spent = ["", "", "", ""]
    if last:
        losses = " / ".join(f"{loss:.4g}" for loss in last.probe_loss)
        spent = [f"{last.images:,}", duration(last.seconds), short(last.macs), losses]
    score = headline.score_of(section.results)
    if score is None:
        return [*start, *spent, "", ""]
    text = f"{headline.metric_words(score['metric'])} {score['value']:.4g}"
    return [*start, *spent, text, interval(score.get("interval"))]


def _losses(names: Sequence[str], sections: Sequence[Section]) -> Panels | None:
    """Losses on the probe over what they cost, a chart for each stage, a line for each run."""
    if not all(section.records for section in sections) or len({*map(_kind, sections)}) != 1:
        return None
    stages = range(len(sections[0].records[-1].probe_loss))
    kinds = [cost for cost in costs_of(sections[0].records) if _all_know(cost, sections)]
    choices = {
        COST_NAMES[cost]: [_chart(names, sections, stage, cost).svg() for stage in stages]
        for cost in kinds
    }
    legend = [(name, run_look(k)) for k, name in enumerate(names)]
    return Panels("together", choices, legend)


def _kind(section: Section) -> tuple[object, ...]:
    """What must be the same for two losses to be of one kind."""
    model = section.config.model
    edges = stages_of(section.config, section.records[-1]).boundaries
    return edges, model.schedule, model.preconditioning, section.config.data.fingerprint


def _all_know(cost: Cost, sections: Sequence[Section]) -> bool:
    return all(cost in costs_of(section.records) for section in sections)


def _chart(names: Sequence[str], sections: Sequence[Section], stage: int, cost: Cost) -> Chart:
    kept = [comparable(section.records) for section in sections]
    largest = max(float(getattr(records[-1], cost)) for records in kept)
    unit, label = unit_of(cost, largest)
    lines = [
        Line(
            x=[getattr(record, cost) / unit for record in records],
            y=[record.probe_loss[stage] for record in records],
            look=run_look(k),
        )
        for k, records in enumerate(kept)
    ]
    ends = ", ".join(f"{name} {line.y[-1]:.4g}" for name, line in zip(names, lines, strict=True))
    return Chart(
        title=f"stage {stage + 1}",
        x=cost_axis(label, [value for line in lines for value in line.x]),
        y=loss_axis("probe loss", [value for line in lines for value in line.y]),
        about=f"Stage {stage + 1}: loss on the probe over {label}; at the end {ends}.",
        lines=lines,
    )
