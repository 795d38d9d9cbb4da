"""The curves of a run: its losses, its stages, and the learned weight."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.report.chart import Axis, Band, Chart, Line, Mark
from multistage_diffusion.report.colours import stage_look
from multistage_diffusion.report.numbers import duration, short
from multistage_diffusion.report.panels import (
    COST_NAMES,
    Panels,
    Table,
    cost_axis,
    loss_axis,
    thinned,
    unit_of,
)
from multistage_diffusion.stages import StagesFile
from multistage_diffusion.study.curve import Cost
from multistage_diffusion.training.learned_weight import LearnedCurve
from multistage_diffusion.training.monitoring.records import Record, comparable

__all__ = ["agreement_panels", "costs_of", "learned_panels", "loss_panels"]

BIN = 8  # losses in a point
WIDE = 460


def costs_of(records: Sequence[Record]) -> list[Cost]:
    """The kinds of cost that records hold."""
    kinds: list[Cost] = ["images", "macs", "seconds"]
    return [kind for kind in kinds if getattr(records[-1], kind) > 0]


def loss_panels(records: Sequence[Record], key: str) -> Panels:
    """Loss over what it cost, a chart for each stage.

    Of training batches, and on the probe of averaged weights and of the optimal denoiser.
    """
    records = comparable(records)
    stages = range(len(records[0].probe_loss))
    choices = {
        COST_NAMES[cost]: [_loss_chart(records, stage, cost).svg() for stage in stages]
        for cost in costs_of(records)
    }
    return Panels(key, choices, _loss_legend(records[-1]), _loss_table(records))


def _loss_chart(records: Sequence[Record], stage: int, cost: Cost) -> Chart:
    spent = [float(getattr(record, cost)) for record in records]
    unit, label = unit_of(cost, spent[-1])
    x, look = [value / unit for value in spent], stage_look(stage)
    training = [_number(record.loss[stage]) for record in records]
    probe = [record.probe_loss[stage] for record in records]
    held = [record.held_out_loss[stage] if record.held_out_loss else math.nan for record in records]
    last = records[-1]
    lines = [Line(x=x, y=training, look=f"{look} faint"), Line(x=x, y=probe, look=look)]
    if last.held_out_loss:
        lines.append(Line(x=x, y=held, look=f"{look} dashed"))
    marks = [Mark(y=last.optimal_loss[stage], look="ink dashed")]
    if last.zero_loss:
        marks.append(Mark(y=last.zero_loss[stage], look="muted dotted"))
    return Chart(
        title=f"stage {stage + 1}",
        x=cost_axis(label, x),
        y=loss_axis("weighted loss", _in_view([*training, *probe, *held], last, stage)),
        about=f"Stage {stage + 1}: weighted loss over {label}. {_course(probe)}",
        lines=lines,
        marks=marks,
    )


def _course(probe: Sequence[float]) -> str:
    return f"On the probe it goes from {probe[0]:.4g} to {probe[-1]:.4g}."


def _in_view(values: Sequence[float], last: Record, stage: int) -> list[float]:
    """Values that the axis spans.

    An optimum that is nearly zero, as in memorised data, does not squeeze the curves flat.
    """
    seen = [value for value in values if math.isfinite(value) and value > 0]
    least = min(seen, default=1.0)
    optimum = last.optimal_loss[stage]
    return [*seen, optimum] if optimum > least / 20 else seen


def _number(loss: float | None) -> float:
    return math.nan if loss is None else loss


def _loss_legend(last: Record) -> list[tuple[str, str]]:
    entries = [("training batches", "ink faint"), ("averaged weights, probe", "ink")]
    if last.held_out_loss:
        entries.append(("averaged weights, held out", "ink dashed"))
    entries.append(("optimal denoiser, probe", "ink dashed thin"))
    if last.zero_loss:
        entries.append(("untrained network", "muted dotted"))
    return entries


def _loss_table(records: Sequence[Record]) -> Table:
    stages = range(1, len(records[0].probe_loss) + 1)
    kinds = ["training", "probe"] + ["held out"] * bool(records[-1].held_out_loss)
    headings = [f"{kind}, stage {stage}" for kind in kinds for stage in stages]
    rows = [_loss_row(record, len(kinds) * len(stages)) for record in records]
    return Table(["images", "MACs", "time", *headings], thinned(rows))


def _loss_row(record: Record, count: int) -> list[str]:
    losses = [*map(_number, record.loss), *record.probe_loss, *record.held_out_loss]
    cells = [f"{loss:.4g}" if math.isfinite(loss) else "" for loss in losses]
    cells += [""] * (count - len(cells))
    return [f"{record.images:,}", short(record.macs), duration(record.seconds), *cells]


def agreement_panels(stages: StagesFile, key: str) -> Panels:
    """The stages, the intervals of their boundaries and the curves they were found from."""
    curves = stages.curves
    looks = (("clean", curves.low_noise_agreement, "ink"),) * bool(curves.low_noise_agreement)
    looks += (("mean", curves.high_noise_agreement, "ink dashed"),) * bool(
        curves.high_noise_agreement
    )
    chart = Chart(
        title="share of pixels",
        x=Axis(label="noise level sigma", low=curves.sigma[0], high=curves.sigma[-1], log=True),
        y=Axis(label="share of pixels", low=0.0, high=1.02),
        about=_about_stages(stages),
        lines=[Line(x=curves.sigma, y=values, look=look) for _, values, look in looks],
        bands=[*_stage_bands(stages.boundaries, curves.sigma), *_intervals(stages)],
        marks=[] if stages.alpha is None else [Mark(y=stages.alpha, look="muted dotted")],
        width=WIDE,
        height=270,
    )
    legend = [(f"agreement with the {limit} image", look) for limit, _, look in looks]
    headings = ["sigma", *(label for label, _ in legend)]
    columns = [curves.sigma, *(values for _, values, _ in looks)]
    rows = [[f"{value:.4g}" for value in row] for row in zip(*columns, strict=True)]
    return Panels(key, {"": [chart.svg()]}, legend, Table(headings, thinned(rows)))


def _about_stages(stages: StagesFile) -> str:
    edges = ", ".join(f"{edge:.4g}" for edge in stages.boundaries) or "none"
    ends = "; ".join(f"{low:.4g} to {high:.4g}" for low, high in stages.ci95)
    found = f" with 95 % intervals {ends}" if ends else ""
    return f"Agreement of the optimal denoiser over the noise level. Boundaries: {edges}{found}."


def _stage_bands(boundaries: Sequence[float], sigma: Sequence[float]) -> list[Band]:
    edges = [sigma[0], *boundaries, sigma[-1]]
    return [
        Band(
            low=edges[k],
            high=edges[k + 1],
            look=f"area {stage_look(k)}",
            label=f"stage {k + 1}" if len(boundaries) < 5 else str(k + 1),
        )
        for k in range(len(edges) - 1)
    ]


def _intervals(stages: StagesFile) -> list[Band]:
    return [Band(low=low, high=high, look="area ink") for low, high in stages.ci95]


def learned_panels(
    learned: LearnedCurve,
    boundaries: Sequence[float],
    training: Sequence[float | None],
    key: str,
) -> Panels:
    """The learned loss over the noise level, with the stages.

    Args:
        learned: content of a run's ``uncertainty.json``.
        boundaries: noise levels between the stages.
        training: mean loss of the training batches in each stage, None where there is none.
        key: of the panels.
    """
    edges = [learned.sigma[0], *boundaries, learned.sigma[-1]]
    lines = [Line(x=learned.sigma, y=learned.loss, look="ink")]
    sigma, losses = np.array(learned.probe.sigma), np.array(learned.probe.loss)
    stage_of = np.searchsorted(boundaries, sigma, side="right")
    for stage, loss in enumerate(training):
        look = stage_look(stage)
        level, mean = (_in_bins(values[stage_of == stage]) for values in (np.log(sigma), losses))
        lines.append(
            Line(x=np.exp(level).tolist(), y=mean.tolist(), look=f"{look} dots", points=True)
        )
        lines.append(Line(x=edges[stage : stage + 2], y=[_number(loss)] * 2, look=look))
    seen = [value for line in lines for value in line.y]
    chart = Chart(
        title="weighted loss",
        x=Axis(label="noise level sigma", low=edges[0], high=edges[-1], log=True),
        y=loss_axis("weighted loss", seen),
        about="The learned loss over the noise level, with losses of training and on the probe.",
        lines=lines,
        bands=_stage_bands(boundaries, (edges[0], edges[-1])),
        width=WIDE,
        height=270,
    )
    legend = [
        ("learned, exp u(sigma)", "ink"),
        ("averaged weights, probe", f"{stage_look(0)} dots"),
        ("training batches, mean", stage_look(0)),
    ]
    pairs = zip(learned.sigma, learned.loss, strict=True)
    rows = thinned([[f"{level:.4g}", f"{loss:.4g}"] for level, loss in pairs])
    return Panels(key, {"": [chart.svg()]}, legend, Table(["sigma", "learned loss"], rows))


def _in_bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of some neighbouring values at a time."""
    parts = np.array_split(values, max(1, len(values) // BIN))
    return np.array([part.mean() for part in parts if len(part)])
