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

from multistage_diffusion.config import read_config, to_json
from multistage_diffusion.cost import StageCost, stage_costs, total_parameters
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.samples import results_of_run
from multistage_diffusion.model import named_classes
from multistage_diffusion.report import colours
from multistage_diffusion.report.figures import learned_figure, loss_figure, stages_figure
from multistage_diffusion.run import Run
from multistage_diffusion.sampling.folder import SampleFolder, SampleNote
from multistage_diffusion.stages import Stages, StagesFile
from multistage_diffusion.text import printable
from multistage_diffusion.training.batches.levels import Levels, stage_shares
from multistage_diffusion.training.config import RunConfig, load_run_config, stages_of_records
from multistage_diffusion.training.learned_weight import LearnedCurve, read_curve
from multistage_diffusion.training.monitoring.overfitting import overfitting
from multistage_diffusion.training.monitoring.records import Record, read_records

__all__ = ["is_report", "render", "stages_svg"]

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
    classes: list[tuple[int, str]]
    settings: str


def render(runs: Sequence[Path]) -> str:
    """The page about the runs in these folders.

    Raises:
        BadInput: if a folder holds no run, or a file of it is damaged.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = files("multistage_diffusion.report").joinpath("page.html").read_text()
    sections = [_section(Run(run)) for run in runs]
    return environment.from_string(text).render(sections=sections, colours=colours)


def is_report(path: Path) -> bool:
    """Whether a file is a report that ``render`` made."""
    return path.is_file() and MARK in path.read_text(errors="replace")


def _section(run: Run) -> Section:
    if not run.begun:
        raise BadInput(
            f"{run.path} holds no run: there is no config.json in it (multistage train makes one)."
        )
    config = load_run_config(run)
    records = read_records(run)
    last = records[-1] if records else None
    if last and len(last.probe_loss) != len(config.model.boundaries) + 1:
        raise BadInput(f"{run.stats} and {run.config} differ in the number of stages.")
    learned = read_curve(run)
    rows = _rows(config, last)
    return Section(
        name=printable(str(run.path)),
        config=config,
        rows=rows,
        mean_macs=sum(row.share * row.cost.macs for row in rows),
        parameters=total_parameters(config.model),
        last=last,
        remarks=_remarks(records),
        stages_svg=stages_svg(run),
        loss_svg=loss_figure(records) if records else None,
        learned_svg=_learned_svg(learned, config, last),
        learned_at=learned.images if learned else None,
        samples=_inline(run.sample_grid),
        sampled_at=_trained_images(run),
        evaluations=results_of_run(run),
        classes=named_classes(config.model),
        settings=_readable(to_json(config)),
    )


def _remarks(records: Sequence[Record]) -> list[str]:
    """Sentences on what went wrong in the run."""
    skipped = sum(record.skipped for record in records)
    sentences = overfitting(records)
    if skipped:
        sentences.append(f"{skipped} steps were left out since loss or gradient were not finite")
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]


def _rows(config: RunConfig, last: Record | None) -> list[StageRow]:
    stages = _stages_of(config, last)
    own = len(stages) == len(config.model.boundaries) + 1
    shares = stage_shares(config) if own else Levels.of(config).shares
    unknown = [None] * len(stages)
    losses = last.probe_loss if last else unknown
    optimal = last.optimal_loss if last else unknown
    costs = stage_costs(config.model)
    return [
        StageRow(k + 1, *stages.bounds(k), shares[k], costs[k if own else 0], losses[k], optimal[k])
        for k in range(len(stages))
    ]


def _stages_of(config: RunConfig, last: Record | None) -> Stages:
    """The stages of a run's records; those of earlier versions had the network's own."""
    own = Stages(config.model.boundaries)
    recorded = stages_of_records(own, config.training)
    return own if last and len(last.probe_loss) == len(own) else recorded


def stages_svg(run: Run) -> str | None:
    """The figure of a run's stages; None if their curves are not known."""
    stages = StagesFile.load(run.stages) if run.stages.exists() else None
    return stages_figure(stages) if stages and stages.curves.sigma else None


def _learned_svg(
    learned: LearnedCurve | None, config: RunConfig, last: Record | None
) -> str | None:
    if not learned or last is None:
        return None
    return learned_figure(learned, _stages_of(config, last).boundaries, last.loss)


def _trained_images(run: Run) -> int | None:
    """The images that the model had seen whose samples are in the run."""
    note = SampleFolder(run.samples).note
    return read_config(SampleNote, note).trained_images if note.exists() else None


def _readable(settings: object) -> str:
    """Indented JSON with each list on one line."""
    text = json.dumps(settings, indent=2)
    return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)


def _inline(path: Path) -> str | None:
    """A PNG file as a URL that holds it."""
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
