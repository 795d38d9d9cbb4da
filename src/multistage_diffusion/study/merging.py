"""One study from the folders of several machines."""

from dataclasses import replace

from multistage_diffusion.errors import BadInput
from multistage_diffusion.study.config import Options, StudyConfig
from multistage_diffusion.study.results import ArmResults, Results

__all__ = ["check_same", "merge"]

OF_MACHINE = ("precision", "compile")
"""Training settings that a machine chooses: they may differ."""
SAME = ("preset", "reference", "images", "evaluate", "denoising_images")
"""Settings of a study that must be equal, beside those of training."""


def check_same(ours: StudyConfig, theirs: StudyConfig) -> None:
    """Checks that two studies train and measure in the same way, whatever their seeds.

    Raises:
        BadInput: if they do not; names the settings.
    """
    different = [name for name in SAME if getattr(ours, name) != getattr(theirs, name)]
    if _method(ours.train) != _method(theirs.train):
        different.append("train")
    for name, arm in ours.arms.items():
        other = theirs.arms.get(name, arm)
        if replace(other, about=arm.about) != arm:
            different.append(f"arms.{name}")
    if different:
        raise BadInput(
            f"--merge: the two studies differ in {', '.join(different)}; only runs that were "
            "trained and measured in the same way are put into one table."
        )


def merge(ours: Results, theirs: Results) -> Results:
    """The runs of both; of a run that both have, ours.

    Args:
        ours: results of a study.
        theirs: those of the same study in another folder. Arms that ours does not have are left
            out.

    Raises:
        BadInput: if they were trained or measured in another way.
    """
    check_same(ours.study, theirs.study)
    arms = {
        name: _merged(arm, theirs.arms[name]) if name in theirs.arms else arm
        for name, arm in ours.arms.items()
    }
    return Results(ours.study, arms)


def _merged(ours: ArmResults, theirs: ArmResults) -> ArmResults:
    """The runs of both, in the order of their seeds; the cost of whichever has runs."""
    measured = {seed: curves for seed, curves in ours.seeds.items() if curves}
    seeds = {**theirs.seeds, **measured}
    finals = {**theirs.finals, **{seed: ours.finals[seed] for seed in measured}}
    return replace(
        ours if ours.seeds else theirs,
        seeds={seed: seeds[seed] for seed in sorted(seeds)},
        finals={seed: finals[seed] for seed in sorted(finals)},
    )


def _method(options: Options) -> Options:
    return {name: value for name, value in options.items() if name not in OF_MACHINE}
