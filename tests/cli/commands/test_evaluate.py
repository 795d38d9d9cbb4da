"""``multistage evaluate``."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, assert_refused

METRIC = ("--metric", "fd-pixels")


def test_a_folder_of_images_is_evaluated(run: Command, folder: Path) -> None:
    code, printed, _ = run("evaluate", folder, "--data", folder, *METRIC)
    assert code == 0
    assert "fd-pixels = " in printed
    (to_itself,) = json.loads((folder / "evaluations.json").read_text())
    assert to_itself["value"] == pytest.approx(0, abs=1e-9)


def test_a_run_is_evaluated_with_its_cost(run: Command, trained: Path, folder: Path) -> None:
    arguments = ["evaluate", trained, "--data", folder, *METRIC, "--images", 6, "--steps", 3]
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0
    results = json.loads((trained / "evaluations.json").read_text())
    assert len(results) == 2
    assert results[0]["value"] == pytest.approx(results[1]["value"], rel=1e-6)
    costs = [set(cost) for cost in results[0]["cost"]["stages"]]
    assert costs == [{"parameters", "macs", "training_macs"}] * 3
    assert sum(results[0]["cost"]["evaluations_per_stage"]) == 5


def test_images_of_other_channels_or_sizes_are_refused(run: Command, trained: Path) -> None:
    assert_refused(run("evaluate", trained, "--data", "digits", *METRIC), "3x8x8")


def test_numbers_of_images_are_checked_before_any_is_drawn(
    run: Command, trained: Path, folder: Path
) -> None:
    arguments = ["evaluate", trained, "--data", folder, *METRIC]
    assert_refused(run(*arguments, "--images", 0), "--images must be at least 2")
    assert_refused(run(*arguments, "--real-images", 1), "--real-images must be at least 2")
    code, printed, _ = run(*arguments, "--images", 4, "--steps", 2, "--real-images", 5000)
    assert code == 0
    assert "against 12 real images" in printed
