"""Curves of a run: what was measured at its checkpoints, over what they had cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from multistage_diffusion.run import Run
from multistage_diffusion.training import read_records
from multistage_diffusion.training.monitoring.records import Record

__all__ = ["COSTS", "Cost", "Point", "curves", "mean_point", "stage_name"]

Cost = Literal["images", "macs", "seconds", "processor_seconds"]
COSTS: tuple[Cost, ...] = ("macs", "images", "seconds", "processor_seconds")


@dataclass(frozen=True)
class Point:
    """What was measured at a checkpoint."""

    images: int
    """Images it has seen."""
    macs: float
    """Multiply-accumulates of training up to it, forward and backward."""
    seconds: float
    processor_seconds: float
    value: float
    interval: tuple[float, float] | None = None
    """95 %, over images."""

    def after(self, earlier: "Point") -> "Point":
        """The point of a run that went on from another run's point."""
        sums = {name: getattr(self, name) + getattr(earlier, name) for name in COSTS}
        return replace(self, **sums)


def mean_point(points: Sequence[Point]) -> Point:
    """The mean of several runs' points, without an interval."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(point, name) for point in points]))

    return Point(
        images=round(mean("images")),
        macs=mean("macs"),
        seconds=mean("seconds"),
        processor_seconds=mean("processor_seconds"),
        value=mean("value"),
    )


def stage_name(stage: int) -> str:
    """Name of the denoising loss of a stage, counted from 0."""
    return f"denoising, stage {stage + 1}"


def curves(run: Run, results: Iterable[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """The curve of each metric, in increasing order of images.

    Args:
        run: its records say what a number of images has cost.
        results: what was measured, as ``multistage evaluate`` writes it.
    """
    costs = _costs(read_records(run))
    found: dict[str, dict[int, Point]] = {}
    for result in results:
        for name, value, interval in _values(result):
            images = int(result["trained_images"])
            point = Point(images, **costs(images), value=value, interval=interval)
            found.setdefault(name, {})[images] = point
    return {name: [points[key] for key in sorted(points)] for name, points in found.items()}


def _values(
    result: Mapping[str, Any],
) -> Iterable[tuple[str, float, tuple[float, float] | None]]:
    """The numbers in a result: one, or for the denoising loss one more for each stage."""
    yield result["metric"], float(result["value"]), _pair(result["interval"])
    if result["metric"] == "denoising":
        for stage, loss in enumerate(result["stages"]):
            yield stage_name(stage), float(loss["value"]), _pair(loss["interval"])


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))


def _costs(records: Sequence[Record]) -> Any:
    """A function from a number of images to what they have cost, between records linear."""
    images = [0, *(record.images for record in records)]
    columns = {
        name: [0.0, *(float(getattr(record, name)) for record in records)]
        for name in COSTS
        if name != "images"
    }
    return lambda seen: {
        name: float(np.interp(seen, images, values)) for name, values in columns.items()
    }
