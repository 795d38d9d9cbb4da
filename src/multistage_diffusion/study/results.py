"""The results of a study, from the folders of its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multistage_diffusion.cost import mean_training_macs, stage_costs, total_parameters
from multistage_diffusion.evaluation.estimate import Estimate, over_seeds
from multistage_diffusion.evaluation.samples import read_results
from multistage_diffusion.run import Run
from multistage_diffusion.study.config import Arm, StudyConfig
from multistage_diffusion.study.curve import COSTS, Cost, Point, curves, mean_point
from multistage_diffusion.study.reach import cost_to_reach, final_score
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import RunConfig, load_run_config

__all__ = ["ArmResults", "Results", "collect", "mean_macs", "run_folder"]

RISING = ("precision", "recall", "density", "coverage", "inception-score")
"""Metrics that are better when larger: they have no cost to reach."""

Curves = dict[str, list[Point]]


@dataclass
class ArmResults:
    """What came out of an arm."""

    name: str
    arm: Arm
    seeds: dict[int, Curves] = field(default_factory=dict)
    """The curves of each finished or begun run, by metric."""
    finals: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)
    """Measurements of finished models beside their curves; each has a tag."""
    parameters: int = 0
    """Of the network; 0 as long as no run has begun."""
    macs_per_stage: tuple[int, ...] = ()
    """Forward multiply-accumulates of an image."""
    training_macs: float | None = None
    """Training multiply-accumulates of an image, over the levels as they are drawn."""

    def final(self, metric: str) -> dict[int, float]:
        """The score at the end of each curve, by seed."""
        return {
            seed: final_score(curves[metric])
            for seed, curves in self.seeds.items()
            if curves.get(metric)
        }

    def mean(self, metric: str) -> list[Point]:
        """The mean of the curves over seeds, as far as all of them have come."""
        found = [curves[metric] for curves in self.seeds.values() if curves.get(metric)]
        return [mean_point(points) for points in zip(*found, strict=False)]


@dataclass
class Results:
    """What came out of a study."""

    study: StudyConfig
    arms: dict[str, ArmResults]

    @property
    def reference(self) -> ArmResults:
        """The arm that the others are compared with."""
        return self.arms[self.study.reference]

    @property
    def seeds(self) -> list[int]:
        """Those of which some arm has a run."""
        return sorted({seed for arm in self.arms.values() for seed in arm.seeds})

    def metrics(self) -> list[str]:
        """Names of all metrics with curves, in the order in which they appear."""
        names: dict[str, None] = {}
        for arm in self.arms.values():
            for found in arm.seeds.values():
                names |= dict.fromkeys(found)
        return list(names)

    def costs(self) -> list[Cost]:
        """The kinds of cost that the reference's runs recorded."""
        points = [
            point
            for metrics in self.reference.seeds.values()
            for curve in metrics.values()
            for point in curve
        ]
        return [cost for cost in COSTS if any(getattr(point, cost) > 0 for point in points)]

    def finished(self) -> dict[tuple[str, str, str], list[float]]:
        """The scores of finished models beside their curves, by arm, tag and metric."""
        values: dict[tuple[str, str, str], list[float]] = {}
        for arm in self.arms.values():
            for one in (one for found in arm.finals.values() for one in found):
                key = arm.name, str(one["tag"]), str(one["metric"])
                values.setdefault(key, []).append(float(one["value"]))
        return values

    def relative(self, arm: str, metric: str) -> Estimate | None:
        """Final score divided by the reference's of the same seed: mean and interval over seeds."""
        ours, others = self.arms[arm].final(metric), self.reference.final(metric)
        ratios = [value / others[seed] for seed, value in ours.items() if others.get(seed)]
        return over_seeds(ratios) if ratios else None

    def reach(self, arm: str, metric: str, cost: Cost = "macs") -> dict[int, float | None]:
        """Cost to reach the reference's final score, as a part of the reference's whole cost.

        By seed; None for one that does not reach it. Empty for metrics that rise.
        """
        if metric.partition("-")[0] in RISING or metric in RISING:
            return {}
        found: dict[int, float | None] = {}
        for seed, whole in self.reference.seeds.items():
            points = self.arms[arm].seeds.get(seed, {}).get(metric)
            if not points or not whole.get(metric):
                continue
            needed = cost_to_reach(points, final_score(whole[metric]), cost)
            total = float(getattr(whole[metric][-1], cost))
            found[seed] = needed / total if needed is not None and total else None
        return found


def mean_macs(config: RunConfig) -> float:
    """Training multiply-accumulates of an image, over the levels as a run draws them."""
    return mean_training_macs(stage_costs(config.model), stage_shares(config))


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """The folder of an arm's run."""
    return out / "runs" / f"{arm}-{seed}"


def collect(study: StudyConfig, out: Path) -> Results:
    """The results so far of a study in its folder."""
    arms = {name: ArmResults(name, arm) for name, arm in study.arms.items()}
    results = Results(study, arms)
    for name, arm in arms.items():
        for seed in study.seeds:
            source = arm.arm.per_stage or (arm.arm.replaced.arm if arm.arm.replaced else name)
            run = Run(run_folder(out, source, seed))
            if run.begun:
                _add_run(arm, seed, run, Run(run_folder(out, name, seed)))
    for arm in arms.values():
        _count_warm_start(arm, results)
    return results


def _add_run(arm: ArmResults, seed: int, run: Run, measured_in: Run) -> None:
    """Adds what was measured in a folder on models of a run."""
    measured = [r for r in read_results(measured_in.evaluations) if "trained_images" in r]
    config = load_run_config(run)
    arm.parameters = total_parameters(config.model)
    arm.macs_per_stage = tuple(cost.macs for cost in stage_costs(config.model))
    arm.training_macs = mean_macs(config)
    arm.seeds[seed] = curves(run, [result for result in measured if not result.get("tag")])
    arm.finals[seed] = [result for result in measured if result.get("tag")]


def _count_warm_start(arm: ArmResults, results: Results) -> None:
    """Adds the cost of the weights that an arm began with to its curves."""
    start = arm.arm.init
    if start is None:
        return
    for seed, found in arm.seeds.items():
        source = results.arms[start.arm].seeds.get(seed, {})
        for metric, points in found.items():
            before = _at(source.get(metric, []), start.images)
            if before:
                found[metric] = [point.after(before) for point in points]


def _at(points: Sequence[Point], images: int) -> Point | None:
    """The point nearest to a number of images, its costs in proportion."""
    if not points:
        return None
    last = points[-1]
    share = images / last.images
    return Point(
        images, last.macs * share, last.seconds * share, last.processor_seconds * share, last.value
    )
