"""Results of a study, from run folders whose numbers are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from multistage_diffusion.config import to_json
from multistage_diffusion.files import write_json
from multistage_diffusion.run import Run
from multistage_diffusion.study import Arm, Results, StudyConfig, collect
from multistage_diffusion.study.config import WarmStart
from multistage_diffusion.study.figures import curves_figure, sampling_figure
from multistage_diffusion.study.results import run_folder
from multistage_diffusion.study.tables import as_json, as_markdown
from multistage_diffusion.training.config import RunConfig

MACS = 10.0
"""Of an image."""


def result(images: int, value: float, **more: Any) -> dict[str, Any]:
    of = {"images": 64, "samples": "run", "data": {"path": "data", "images": 64}}
    score = {"metric": "fd-x", "value": value, "interval": None, "trained_images": images}
    return {**of, **score, **more}


def denoising(images: int, *stages: float) -> dict[str, Any]:
    losses = [{"value": loss, "interval": [loss - 0.1, loss + 0.1]} for loss in stages]
    mean = sum(stages) / len(stages)
    return {**result(images, mean), "metric": "denoising", "stages": losses}


def record(images: int) -> str:
    losses = {"loss": [1.0], "share": [1.0], "probe_loss": [1.0], "optimal_loss": [1.0]}
    cost = {"macs": MACS * images, "seconds": images / 2, "processor_seconds": images}
    known = {"images": images, "learning_rate": 1.0, "images_per_second": 1.0}
    return json.dumps({**known, **losses, **cost}) + "\n"


@pytest.fixture
def write(tmp_path: Path, run_config: RunConfig) -> Any:
    def run(arm: str, seed: int, results: list[dict[str, Any]]) -> None:
        folder = Run(run_folder(tmp_path, arm, seed))
        write_json(folder.config, to_json(run_config))
        folder.stats.write_text(record(40) + record(100))
        write_json(folder.evaluations, results)

    return run


def study(**arms: Arm) -> StudyConfig:
    return StudyConfig(
        name="try",
        preset="digits",
        data="digits",
        reference="whole",
        images=100,
        seeds=(0, 1),
        arms={"whole": Arm(), **arms},
    )


def test_scores_are_compared_seed_by_seed(write: Any, tmp_path: Path) -> None:
    for seed, shift in ((0, 0.0), (1, 1.0)):
        write("whole", seed, [result(50, 8 + shift), result(100, 4 + shift)])
        write("half", seed, [result(100, 2 + shift), result(50, 4 + shift)])
    results = collect(study(half=Arm(about="cheaper")), tmp_path)
    assert results.reach("half", "fd-x") == {0: 0.5, 1: 0.5}
    assert results.reach("whole", "fd-x", "seconds") == {0: 1.0, 1: 1.0}
    ratio = results.relative("half", "fd-x")
    assert ratio
    assert ratio.interval
    assert ratio.value == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert results.arms["half"].seeds[0]["fd-x"][0].macs == 50 * MACS


def test_a_score_that_is_not_reached_is_said_so(write: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        write("whole", seed, [result(50, 8), result(100, 4)])
        write("worse", seed, [result(50, 9), result(100, 5 - 2 * seed)])
    results = collect(study(worse=Arm()), tmp_path)
    assert results.reach("worse", "fd-x")[0] is None
    assert "1 of 2 seeds" in as_markdown(results, {})


def test_the_cost_of_the_weights_an_arm_began_with_counts(write: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        write("whole", seed, [result(50, 8), result(100, 4)])
        write("staged", seed, [result(20, 3)])
    results = collect(study(staged=Arm(init=WarmStart(arm="whole", images=60))), tmp_path)
    (point,) = results.arms["staged"].seeds[0]["fd-x"]
    assert (point.images, point.macs, point.seconds) == (80, 80 * MACS, 40)
    assert results.reach("staged", "fd-x")[0] == pytest.approx(0.8)


@pytest.fixture
def results(write: Any, tmp_path: Path) -> Results:
    """Two arms with every kind of measurement, one seed of the second missing."""
    cost = {"stages": [{"macs": 5}], "evaluations_per_stage": [4]}
    tagged = {"tag": "heun 4", "options": {"solver": "heun"}, "cost": cost}
    for seed in (0, 1):
        curve = [result(50, 8), result(100, 4), denoising(50, 1.0, 2.0), denoising(100, 0.5, 2.5)]
        write("whole", seed, [*curve, result(100, 4.5, **tagged)])
    write("half", 0, [result(50, 4), result(100, 3), denoising(100, 0.4, 2.0)])
    return collect(study(half=Arm(about="cheaper")), tmp_path)


def test_stages_have_curves_of_their_own_and_tagged_results_none(results: Results) -> None:
    assert results.metrics() == ["fd-x", "denoising", "denoising, stage 1", "denoising, stage 2"]
    assert results.arms["half"].final("denoising, stage 2") == {0: 2.0}
    assert [point.value for point in results.arms["whole"].seeds[0]["fd-x"]] == [8, 4]
    assert [found["tag"] for found in results.arms["whole"].finals[1]] == ["heun 4"]


def test_tables_hold_all_of_it(results: Results) -> None:
    page = as_markdown(results, {"A figure": "figures/a.svg"})
    assert "| fd-x | 1 ± 0 | 0.5 |" in page
    assert "| whole | fd-x | 4.5 ± 0 |" in page
    assert "![A figure](figures/a.svg)" in page
    assert all(line.count("|") != 1 for line in page.splitlines())
    found = json.loads(json.dumps(as_json(results)))
    assert found["arms"]["half"]["macs_to_reach_reference"]["fd-x"] == {"0": 0.5}
    assert len(found["arms"]["whole"]["curves"]["1"]["denoising"]) == 2


def test_figures_name_the_arms(results: Results) -> None:
    for figure in (
        curves_figure(results, results.metrics(), "macs"),
        sampling_figure(results, "fd-x"),
    ):
        assert figure.startswith("<svg")
        assert "whole" in figure
