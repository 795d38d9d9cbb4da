"""Results of one study from several folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multistage_diffusion.config import to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.study import Arm, Results, StudyConfig, load_study, merge
from multistage_diffusion.study.curve import Point
from multistage_diffusion.study.results import ArmResults
from multistage_diffusion.study.tables import as_json, as_markdown

STUDY = StudyConfig(
    name="try",
    preset="digits",
    data="digits",
    reference="whole",
    images=100,
    seeds=(0,),
    train={"size": 8, "precision": "bf16"},
    arms={"whole": Arm(about="one decoder"), "half": Arm(train={"width": 4})},
)


def curve(end: float) -> dict[str, list[Point]]:
    return {"fd": [Point(50, 500.0, 1, 1, end + 1), Point(100, 1000.0, 2, 2, end)]}


def results(study: StudyConfig = STUDY, **ends: dict[int, float]) -> Results:
    """Of arms whose score at the end is given for each seed."""
    arms = {}
    for name, arm in study.arms.items():
        found = ends.get(name, {})
        curves = {seed: curve(end) for seed, end in found.items()}
        finals: Any = {seed: [] for seed in found}
        cost: Any = (7, (5, 6), 16.5) if found else ()
        arms[name] = ArmResults(name, arm, curves, finals, *cost)
    return Results(study, arms)


def test_seeds_of_both_are_compared_seed_by_seed() -> None:
    ours = results(whole={2: 8.0}, half={2: 4.0})
    theirs = results(whole={0: 10.0, 1: 9.0}, half={0: 1.0})
    both = merge(ours, theirs)
    assert both.seeds == [0, 1, 2]
    assert both.arms["whole"].final("fd") == {0: 10.0, 1: 9.0, 2: 8.0}
    ratio = both.relative("half", "fd")
    assert ratio
    assert ratio.value == pytest.approx((0.1 + 0.5) / 2)


def test_of_a_run_that_both_have_ours_is_taken_unless_it_was_not_measured() -> None:
    ours, theirs = results(whole={0: 8.0, 1: 7.0}), results(whole={0: 1.0, 1: 2.0})
    ours.arms["whole"].seeds[1] = {}
    assert merge(ours, theirs).arms["whole"].final("fd") == {0: 8.0, 1: 2.0}


def test_an_arm_that_only_the_others_trained_keeps_its_cost() -> None:
    both = merge(results(whole={0: 8.0}), results(whole={0: 8.0}, half={0: 4.0}))
    assert both.arms["half"].parameters == 7
    assert "| half |  | 1 | 7 | 0.0 M / 0.0 M | 0.0 M |" in as_markdown(both, {})


def test_results_read_from_their_file_are_those_written(tmp_path: Path) -> None:
    written = results(whole={0: 8.0, 3: 7.0}, half={3: 4.0})
    write_json(tmp_path / "study.json", to_json(STUDY))
    write_json(tmp_path / "results.json", as_json(written))
    assert load_study(tmp_path) == written


def test_a_machine_may_choose_its_precision() -> None:
    other = replace(STUDY, train={"size": 8, "precision": "float32", "compile": True})
    assert merge(results(whole={0: 8.0}), results(other, whole={1: 7.0})).seeds == [0, 1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": 200}, "images"),
        ({"train": {"size": 16}}, "train"),
        ({"evaluate": {"images": 64}}, "evaluate"),
        ({"arms": {**STUDY.arms, "half": Arm(train={"width": 8})}}, "arms.half"),
    ],
)
def test_runs_trained_or_measured_in_another_way_are_refused(
    change: dict[str, Any], named: str
) -> None:
    other = results(replace(STUDY, **change), whole={1: 7.0})
    with pytest.raises(BadInput, match=f"differ in {named};"):
        merge(results(whole={0: 8.0}), other)
