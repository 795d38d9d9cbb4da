"""The findings of an inspection: conclusions from a survey."""

import statistics
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from multistage_diffusion.clustering import Clustering
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection.duplicates import Pair, copies, near_duplicates
from multistage_diffusion.inspection.next_commands import next_commands, reading_arguments
from multistage_diffusion.inspection.proposal import Proposal, closed_form, propose
from multistage_diffusion.inspection.survey import Survey

__all__ = ["Findings", "conclude"]

RARE = 10  # times fewer images than the largest class


@dataclass(frozen=True)
class Findings:
    """A survey and its conclusions."""

    survey: Survey
    labels: dict[str, int]
    """Images of each class, in the order of the classes; empty without labels."""
    label_problem: str
    """Why a run would refuse the labels, if it would."""
    copies: list[list[int]]
    """Groups of images with the same pixels."""
    near: list[Pair]
    """Images that nearly repeat another, the first of each group of copies standing for the
    others."""
    proposal: Proposal
    stages: Clustering | str
    """Stages by the closed form on a part of the images, or why there are none."""
    commands: list[str]
    """What to do next."""

    @property
    def problems(self) -> list[str]:
        """What a run would refuse, in sentences without their full stops."""
        problems = (self._broken_problem(), self.label_problem, self._value_problem())
        return [problem for problem in problems if problem]

    def _broken_problem(self) -> str:
        count = len(self.survey.broken)
        if not count or self.survey.options.skip_broken:
            return ""
        verb = "is" if count == 1 else "are"
        return (
            f"{count} of {self.survey.expected} images {verb} broken; cluster and train refuse "
            "them: fix or remove them, or give --skip-broken"
        )

    def _value_problem(self) -> str:
        if round(self.survey.histogram.sigma_data, 4):
            return ""
        return "all values are the same, so there is nothing to learn"

    def broken_lines(self) -> list[str]:
        """A line for each broken image."""
        return [f"{broken.where}: {broken.reason}" for broken in self.survey.broken]

    def duplicate_lines(self) -> list[str]:
        """A line for each group of copies and each near-duplicate."""
        names = self.survey.names
        same = [
            "same pixels: " + ", ".join(names[index] for index in group) for group in self.copies
        ]
        kinds = {False: "nearly the same", True: "mirrored"}
        return same + [
            f"{kinds[pair.mirrored]}: {names[pair.first]}, {names[pair.second]}"
            for pair in self.near
        ]

    def imbalance(self) -> str:
        """A remark on classes that are much rarer than the largest, if there are any."""
        if len(self.labels) < 2:
            return ""
        largest = max(self.labels, key=lambda name: self.labels[name])
        rare = [name for name, count in self.labels.items() if count * RARE <= self.labels[largest]]
        if not rare:
            return ""
        named = ", ".join(rare[:5]) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
        return (
            f"uneven: {named} ha{'s' if len(rare) == 1 else 've'} at most a tenth of the images of "
            f"{largest}"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        survey, histogram = self.survey, self.survey.histogram
        names = survey.names
        return {
            "source": survey.source,
            "images": len(names),
            "broken": [asdict(broken) for broken in survey.broken],
            "problems": self.problems,
            "notes": survey.remarks(),
            "left_out": [asdict(entry) for entry in survey.left_out],
            "sizes": [
                {"height": h, "width": w, "images": n} for (h, w), n in survey.sizes.most_common()
            ],
            "stored": [
                {"as": mode, "done": done, "images": n}
                for (mode, done), n in survey.modes.most_common()
            ],
            "labels": self.labels,
            "copies": [[names[index] for index in group] for group in self.copies],
            "near_duplicates": [
                {"images": [names[pair.first], names[pair.second]], "mirrored": pair.mirrored}
                for pair in self.near
            ],
            "read_as": {"shape": list(survey.shape), "options": reading_arguments(survey.options)},
            "mean": histogram.means.tolist(),
            "standard_deviation": histogram.deviations.tolist(),
            "sigma_data": histogram.sigma_data,
            "proposal": self._proposal(),
            "commands": self.commands,
        }

    def _proposal(self) -> dict[str, Any]:
        preset, stages = self.proposal.preset, self.stages
        found: dict[str, Any] = {"closed_form": None, "reason": stages}
        if isinstance(stages, Clustering):
            measured = {
                "boundaries": list(stages.stages.boundaries),
                "ci95": [list(ends) for ends in stages.ci95],
            }
            found = {
                "closed_form": {**measured, "images": len(self.survey.part), "pairs": stages.pairs}
            }
        return {
            "preset": self.proposal.name,
            "options": list(self.proposal.options),
            "schedule": preset.diffusion.schedule,
            "boundaries": list(preset.diffusion.boundaries),
            **found,
            "remarks": list(self.proposal.remarks),
        }


def conclude(survey: Survey) -> Findings:
    """Works out labels, duplicates and the proposal from a survey."""
    labels, problem = _labels(survey)
    same = copies(survey.digests)
    shortest = statistics.median(min(size) for size in survey.sizes.elements())
    labelled = bool(labels) and not problem
    proposal = propose(survey.shape, len(survey.names), labelled, shortest)
    stages = closed_form(survey.part_images())
    skip_broken = survey.options.skip_broken or bool(survey.broken)
    options = replace(survey.options, skip_broken=skip_broken)
    commands = next_commands(survey.name, options, proposal, isinstance(stages, Clustering))
    return Findings(survey, labels, problem, same, _near(survey, same), proposal, stages, commands)


def _labels(survey: Survey) -> tuple[dict[str, int], str]:
    """Images of each class, and what is wrong with the labels."""
    try:
        found = survey.numbered_labels()
    except BadInput as error:
        counts = Counter(str(label) for label in survey.labels if label is not None)
        return dict(counts), str(error).removesuffix(".")
    if found.labels is None:
        return {}, ""
    survey.notes += found.notes
    per_class = found.labels.bincount(minlength=len(found.classes)).tolist()
    return dict(zip(found.classes, per_class, strict=True)), ""


def _near(survey: Survey, same: list[list[int]]) -> list[Pair]:
    """Near-duplicates among images that are no copies of an earlier one."""
    repeated = {index for group in same for index in group[1:]}
    rows = np.array([index for index in range(len(survey.names)) if index not in repeated])
    pairs = near_duplicates(np.stack(survey.thumbnails)[rows])
    return [Pair(int(rows[pair.first]), int(rows[pair.second]), pair.mirrored) for pair in pairs]
