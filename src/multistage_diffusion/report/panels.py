"""Charts beside one another, with a legend, a choice of the horizontal axis and the numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multistage_diffusion.report.chart import Axis
from multistage_diffusion.study.curve import Cost

__all__ = ["COST_NAMES", "Panels", "Table", "cost_axis", "loss_axis", "thinned", "unit_of"]

MOST_ROWS = 40

COST_NAMES: dict[Cost, str] = {
    "images": "images",
    "macs": "MACs",
    "seconds": "time",
    "processor_seconds": "processor time",
}
"""What the reader chooses between, in this order."""
LABELS: dict[Cost, str] = {
    "images": "training images",
    "macs": "training multiply-accumulates",
    "seconds": "{} of training",
    "processor_seconds": "processor {} of training",
}


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Panels:
    """Charts of one kind."""

    key: str
    """A key that no other panels of the page have."""
    choices: Mapping[str, Sequence[str]]
    """The SVG text of the charts, by the name of their horizontal axis; the first is shown."""
    legend: Sequence[tuple[str, str]]
    """Name and look of each line."""
    table: Table | None = None


def unit_of(cost: Cost, largest: float) -> tuple[float, str]:
    """A divisor for values of a cost, and the label of their axis."""
    if "seconds" not in cost:
        return 1.0, LABELS[cost]
    size, name = next(
        (size, name)
        for size, name in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if largest > 2 * size or size == 1
    )
    return float(size), LABELS[cost].format(name)


def cost_axis(label: str, values: Sequence[float], log: bool = False) -> Axis:
    """An axis of a cost, from 0 or from its smallest value."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = (min(known) if log else 0.0), max(known)
    return Axis(label=label, low=low, high=high if high > low else 2 * low, log=log)


def loss_axis(label: str, values: Sequence[float], log: bool = True) -> Axis:
    """An axis that leaves room around finite values."""
    found = np.array([value for value in values if math.isfinite(value) and (value > 0 or not log)])
    if not len(found):
        return Axis(label=label, low=1e-3, high=1.0, log=True)
    low, high = float(found.min()), float(found.max())
    if log:
        return Axis(label=label, low=low / 1.15, high=high * 1.15, log=True)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return Axis(label=label, low=low - room, high=high + room)


def thinned(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """At most some of many rows, the last one among them."""
    step = -(-len(rows) // MOST_ROWS)
    return list(rows[::-1][:: max(step, 1)])[::-1]
