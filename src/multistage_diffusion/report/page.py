"""A run, or several, as one HTML page that needs nothing beside it."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.cost import StageCost, stage_costs, total_parameters
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.report.figures import learned_figure, loss_figure, stages_figure
from multistage_diffusion.run import Run
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.learned_weight import read_curve
from multistage_diffusion.training.monitoring.overfitting import overfitting
from multistage_diffusion.training.monitoring.records import Record, read_records

__all__ = ["is_report", "render"]

MARK = "multistage diffusion</title>"


@dataclass(frozen=True)
class StageRow:
    """A line of the cost table."""

    number: int
    low: float
    high: float
    share: float
    cost: StageCost
    loss: float | None
    optimal: float | None


@dataclass(frozen=True)
class Section:
    """What the page says about one run."""

    name: str
    config: RunConfig
    rows: list[StageRow]
    mean_macs: float
    parameters: int
    last: Record | None
    remarks: list[str]
    stages_svg: str | None
    loss_svg: str | None
    learned_svg: str | None
    learned_at: int | None
    samples: str | None
    sampled_at: int | None
    evaluations: list[dict[str, Any]]
    settings: str


def render(runs: Sequence[Path]) -> str:
    """The page.

    Raises:
        BadInput: if a folder holds no run, or a file of it is damaged.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(
        files("multistage_diffusion.report").joinpath("page.html").read_text()
    )
    return template.render(sections=[_section(run) for run in runs])


def is_report(path: Path) -> bool:
    """Whether a file is a report that ``render`` made."""
    return path.is_file() and MARK in path.read_text(errors="replace")


def _section(run: Path) -> Section:
    if not (run / "config.json").exists():
        raise BadInput(
            f"{run} holds no run: there is no config.json in it (multistage train makes one)."
        )
    config = from_json(RunConfig, read_json(run / "config.json"))
    records, learned = read_records(Run(run)), read_curve(Run(run))
    rows = _rows(config, records[-1] if records else None)
    return Section(
        name=str(run),
        config=config,
        rows=rows,
        mean_macs=sum(row.share * row.cost.macs for row in rows),
        parameters=total_parameters(config.model),
        last=records[-1] if records else None,
        remarks=_remarks(records),
        stages_svg=_stages_svg(run / "stages.json"),
        loss_svg=loss_figure(records) if records else None,
        learned_svg=learned_figure(learned, config.model.boundaries, records[-1].loss)
        if learned and records
        else None,
        learned_at=learned["images"] if learned else None,
        samples=_inline(run / "samples.png"),
        sampled_at=read_json(note)["trained_images"]
        if (note := run / "samples" / "samples.json").exists()
        else None,
        evaluations=_evaluations(run),
        settings=_readable(to_json(config)),
    )


def _remarks(records: list[Record]) -> list[str]:
    """What a person should know about how the run went."""
    skipped = sum(record.skipped for record in records)
    left_out = (
        [f"{skipped} steps were left out since loss or gradient were not finite"] if skipped else []
    )
    return [
        f"{sentence[0].upper()}{sentence[1:]}." for sentence in [*overfitting(records), *left_out]
    ]


def _rows(config: RunConfig, last: Record | None) -> list[StageRow]:
    stages, shares = Stages(config.model.boundaries), stage_shares(config)
    losses = (
        zip(last.probe_loss, last.optimal_loss, strict=True)
        if last
        else [(None, None)] * len(stages)
    )
    return [
        StageRow(k + 1, *stages.bounds(k), shares[k], cost, loss, optimal)
        for k, (cost, (loss, optimal)) in enumerate(
            zip(stage_costs(config.model), losses, strict=True)
        )
    ]


def _stages_svg(path: Path) -> str | None:
    stages = read_json(path) if path.exists() else {}
    return stages_figure(stages) if stages.get("curves") else None


def _readable(settings: object) -> str:
    """Indented JSON with each list on one line."""
    return re.sub(
        r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(settings, indent=2)
    )


def _inline(path: Path) -> str | None:
    return (
        "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        if path.exists()
        else None
    )


def _evaluations(run: Path) -> list[dict[str, Any]]:
    paths = [run / "evaluations.json", run / "samples" / "evaluations.json"]
    return [result for path in paths if path.exists() for result in read_json(path)]
