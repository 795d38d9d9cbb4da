"""The section of a page about one run."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multistage_diffusion.config import to_json
from multistage_diffusion.cost import StageCost, mean_training_macs, stage_costs, total_parameters
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.samples import results_of_run
from multistage_diffusion.model import named_classes
from multistage_diffusion.report import headline
from multistage_diffusion.report.curves import agreement_panels, learned_panels, loss_panels
from multistage_diffusion.report.denoising_path import DenoisingPath, denoising_path
from multistage_diffusion.report.figures import stages_figure
from multistage_diffusion.report.numbers import duration, interval, short
from multistage_diffusion.report.panels import Panels, Table
from multistage_diffusion.report.pictures import Samples, file_url, samples_of
from multistage_diffusion.run import Run
from multistage_diffusion.stages import Stages, StagesFile
from multistage_diffusion.text import printable
from multistage_diffusion.training.batches.levels import Levels, stage_shares
from multistage_diffusion.training.config import RunConfig, load_run_config, stages_of_records
from multistage_diffusion.training.learned_weight import read_curve
from multistage_diffusion.training.monitoring.overfitting import overfitting
from multistage_diffusion.training.monitoring.records import Record, read_records

__all__ = ["Section", "section_of", "stages_of", "stages_svg"]

GIB = 2**30


@dataclass(frozen=True)
class Section:
    """The content of the section about one run."""

    key: str
    """A key that no other section of the page has."""
    name: str
    headline: str
    config: RunConfig
    records: Sequence[Record]
    results: Sequence[dict[str, Any]]
    parameters: int
    facts: Sequence[tuple[str, str]]
    """What it cost so far."""
    remarks: Sequence[str]
    stages: Panels | None
    gradients: str | None
    """The figure of stages that were found from gradients."""
    losses: Panels | None
    learned: Panels | None
    learned_at: int | None
    samples: Samples | None
    path: DenoisingPath
    pairs: str | None
    """The generated images nearest to real ones."""
    costs: Table
    evaluations: Table | None
    classes: Sequence[tuple[int, str]]
    settings: str


def section_of(run: Run, key: str) -> Section:
    """Reads a run.

    Raises:
        BadInput: if the folder holds no run, or a file of it is damaged.
    """
    if not run.begun:
        raise BadInput(
            f"{run.path} holds no run: there is no config.json in it (multistage train makes one)."
        )
    config = load_run_config(run)
    records = read_records(run)
    last = records[-1] if records else None
    if last and len(last.probe_loss) != len(config.model.boundaries) + 1:
        raise BadInput(
            f"{run.stats} and {run.config} differ in the number of stages: one is of another run; "
            "put the right one back."
        )
    results = results_of_run(run)
    parameters, costs = total_parameters(config.model), stage_costs(config.model)
    learned, stages = read_curve(run), _drawn_stages(run)
    of_gradients = stages is not None and bool(stages.curves.cosines)
    edges = stages_of(config, last).boundaries
    return Section(
        key=key,
        name=printable(str(run.path)),
        headline=headline.of_run(config.model.network, config.data.path, last, results),
        config=config,
        records=records,
        results=results,
        parameters=parameters,
        facts=_facts(parameters, config, last),
        remarks=_remarks(records),
        stages=agreement_panels(stages, f"{key}-stages") if stages and not of_gradients else None,
        gradients=stages_figure(stages) if stages and of_gradients else None,
        losses=loss_panels(records, f"{key}-losses") if records else None,
        learned=learned_panels(learned, edges, last.loss, f"{key}-learned")
        if learned and last
        else None,
        learned_at=learned.images if learned else None,
        samples=samples_of(run, config.model),
        path=denoising_path(run, config.model, [cost.macs for cost in costs]),
        pairs=_pairs(run),
        costs=_costs(config, costs, parameters, last),
        evaluations=_evaluations(results),
        classes=named_classes(config.model) if config.model.class_names else (),
        settings=_readable(to_json(config)),
    )


def _facts(parameters: int, config: RunConfig, last: Record | None) -> list[tuple[str, str]]:
    """The ledger of the run, as far as it was kept."""
    facts = [("parameters", short(parameters))]
    if last is None:
        return facts
    facts += [
        ("training images", f"{last.images:,} of {config.training.images:,}"),
        ("wall-clock time", duration(last.seconds)),
        ("images per second", short(last.images_per_second)),
    ]
    if last.macs:
        facts.append(("training MACs", short(last.macs)))
    if last.utilisation:
        facts.append(("FLOPs utilisation", f"{last.utilisation:.0%}"))
    if last.processor_seconds:
        facts.append(("processor time", duration(last.processor_seconds)))
    if last.joules:
        facts.append(("energy", f"{short(last.joules)}J"))
    if last.memory:
        facts.append(("peak memory", f"{last.memory / GIB:.2f} GiB"))
    return facts


def _remarks(records: Sequence[Record]) -> list[str]:
    """Sentences on what went wrong in the run."""
    skipped = sum(record.skipped for record in records)
    sentences = overfitting(records)
    if skipped:
        sentences.append(f"{skipped} steps were left out since loss or gradient were not finite")
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]


def stages_of(config: RunConfig, last: Record | None) -> Stages:
    """The stages of a run's records; those of earlier versions had the network's own."""
    own = Stages(config.model.boundaries)
    recorded = stages_of_records(own, config.training)
    return own if last and len(last.probe_loss) == len(own) else recorded


def _costs(
    config: RunConfig, costs: Sequence[StageCost], parameters: int, last: Record | None
) -> Table:
    """The table of the stages: noise levels, costs and losses."""
    stages = stages_of(config, last)
    own = len(stages) == len(config.model.boundaries) + 1
    shares = stage_shares(config) if own else Levels.of(config).shares
    per_stage = [costs[k if own else 0] for k in range(len(stages))]
    rows = [_cost_row(stages, k, shares[k], per_stage[k], last) for k in range(len(stages))]
    mean = sum(share * cost.macs for share, cost in zip(shares, per_stage, strict=True))
    training = mean_training_macs(per_stage, shares)
    whole = f"{parameters:,}", short(mean), short(training)
    headings = [
        "stage",
        "sigma from",
        "to",
        "share of training",
        "parameters",
        "MACs",
        "training MACs",
    ]
    headings += ["probe loss", "optimum"]
    return Table(headings, [*rows, ["whole", "", "", "", *whole, "", ""]])


def _cost_row(
    stages: Stages, stage: int, share: float, cost: StageCost, last: Record | None
) -> list[str]:
    low, high = stages.bounds(stage)
    losses = (last.probe_loss[stage], last.optimal_loss[stage]) if last else ()
    cells = [f"{loss:.4g}" for loss in losses] or ["", ""]
    work = f"{cost.parameters:,}", short(cost.macs), short(cost.training_macs)
    return [str(stage + 1), f"{low:.4g}", f"{high:.4g}", f"{share:.1%}", *work, *cells]


def _evaluations(results: Sequence[dict[str, Any]]) -> Table | None:
    if not results:
        return None
    headings = ["metric", "value", "95 % interval", "generated", "real", "samples", "images seen"]
    return Table(headings, [_evaluation_row(result) for result in results])


def _evaluation_row(result: dict[str, Any]) -> list[str]:
    data = result["data"]
    seen = result.get("trained_images")
    return [
        result["metric"],
        f"{result['value']:.4f}",
        interval(result.get("interval"), ".4f"),
        f"{result['images']:,}",
        f"{data['images']:,} of {data['path']}",
        result["samples"],
        "" if seen is None else f"{seen:,}",
    ]


def _drawn_stages(run: Run) -> StagesFile | None:
    """The stages of a run, if their curves are known."""
    stages = StagesFile.load(run.stages) if run.stages.exists() else None
    return stages if stages and stages.curves.sigma else None


def stages_svg(run: Run) -> str | None:
    """The figure of a run's stages; None if their curves are not known."""
    stages = _drawn_stages(run)
    return stages_figure(stages) if stages else None


def _pairs(run: Run) -> str | None:
    """The picture that an evaluation left of the run or of the samples in it."""
    files = (run.nearest_pairs, Run(run.samples).nearest_pairs)
    return next((file_url(file) for file in files if file.exists()), None)


def _readable(settings: object) -> str:
    """Indented JSON with each list on one line."""
    text = json.dumps(settings, indent=2)
    return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)
