"""``multistage evaluate``."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, assert_refused, contents

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


def test_an_autoencoder_is_evaluated_by_its_reconstructions(run: Command, folder: Path) -> None:
    """Patches with all of their values lose nothing, fewer lose the more."""
    found = {}
    for name in ("pca-f2c12", "pca-f2c6", "pca-f2c3"):
        code, printed, _ = run("evaluate", name, "--data", folder, *METRIC)
        assert code == 0
        values = dict(line.split(" = ") for line in printed.splitlines() if " = " in line)
        found[name] = [float(text.split()[0]) for text in values.values()]
    (all_psnr, all_fd), (_, six_fd), (three_psnr, three_fd) = found.values()
    assert all_psnr > 50 > three_psnr
    assert all_fd < 1e-3 < six_fd < three_fd


@pytest.mark.parametrize("metric", ["fd-pixels", "denoising"])
def test_each_checkpoint_is_measured_once(
    run: Command, trained: Path, folder: Path, metric: str
) -> None:
    arguments = ["evaluate", trained, "--data", folder, "--metric", metric, "--images", 8]
    arguments += ["--steps", 2, "--checkpoints", 5, "--missing-only"]
    assert run(*arguments)[0] == 0
    first = json.loads((trained / "evaluations.json").read_text())
    seen = [int(path.name) for path in sorted((trained / "checkpoints").iterdir())]
    assert [result["trained_images"] for result in first] == seen[-5:]
    assert "already" in run(*arguments)[1]
    assert json.loads((trained / "evaluations.json").read_text()) == first
    assert run(*arguments, "--seed", 1)[0] == 0
    assert len(json.loads((trained / "evaluations.json").read_text())) == 2 * len(first)
    # a damaged one is refused before the others are measured
    last = trained / "checkpoints" / f"{seen[-1]:012}" / "model.safetensors"
    last.write_bytes(last.read_bytes()[:-8])
    before = contents(trained)
    assert_refused(run(*arguments, "--seed", 2), f"Cannot read {last}")
    assert contents(trained) == before


def test_checkpoints_are_those_of_a_run(run: Command, folder: Path) -> None:
    refused = run("evaluate", folder, "--data", folder, *METRIC, "--checkpoints", 3)
    assert_refused(refused, "no run with checkpoints")


def test_images_of_other_channels_or_sizes_are_refused(run: Command, trained: Path) -> None:
    assert_refused(run("evaluate", trained, "--data", "digits", *METRIC), "3x8x8")


def test_numbers_of_images_are_checked_before_any_is_drawn(
    run: Command, trained: Path, folder: Path
) -> None:
    arguments = ["evaluate", trained, "--data", folder, *METRIC]
    assert_refused(run(*arguments, "--images", 0), "setting images must be at least 2")
    assert_refused(run(*arguments, "--real-images", 1), "setting real_images must be at least 2")
    code, printed, _ = run(*arguments, "--images", 4, "--steps", 2, "--real-images", 5000)
    assert code == 0
    assert "against 12 real images" in printed


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """The last result of each metric."""
    found = json.loads((folder / "evaluations.json").read_text())
    return {result["metric"]: result for result in found}


def test_a_suite_measures_everything_it_can_and_says_what_it_cannot(
    run: Command, folder: Path
) -> None:
    arguments = ["evaluate", folder, "--data", folder, "--suite", "full", "--extractor", "pixels"]
    code, _, err = run(*arguments, "--held-out-data", folder, "--images", 5)
    assert code == 0
    assert "left out: FID, KID" in err
    assert "left out: Precision, recall, density and coverage need more than 5 images" in err
    assert "5 images are few" in err
    found = results(folder)
    assert set(found) == {f"{name}-pixels" for name in ("fd", "kd", "mind", "memorisation")}
    for name in ("fd", "kd", "mind"):
        low, high = found[f"{name}-pixels"]["interval"]
        assert low <= found[f"{name}-pixels"]["value"] <= high
    assert (folder / "memorisation.png").exists()


def test_a_training_set_is_its_own_perfect_model_and_memorised(run: Command, folder: Path) -> None:
    arguments = ["evaluate", folder, "--data", folder, "--suite", "full", "--extractor", "pixels"]
    assert run(*arguments)[0] == 0
    found = results(folder)
    for name in ("precision", "recall", "coverage", "memorisation"):
        assert found[f"{name}-pixels"]["value"] == 1
    assert found["fd-pixels"]["value"] == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_several_seeds_give_a_mean_and_an_interval(
    run: Command, trained: Path, folder: Path
) -> None:
    drawing = ["--images", 6, "--steps", 2, *METRIC]
    arguments = ["evaluate", trained, "--data", folder, *drawing]
    for seed in (3, 4):
        assert run(*arguments, "--seed", seed)[0] == 0
    assert run(*arguments, "--seeds", 3, 4)[0] == 0
    single = json.loads((trained / "evaluations.json").read_text())
    values = [result["value"] for result in single[:2]]
    both = single[2]
    assert both["values"] == pytest.approx(values)
    assert both["value"] == pytest.approx(sum(values) / 2)
    assert both["seeds"] == [3, 4]
    assert both["interval_over"] == "seeds"


def test_the_denoising_loss_is_measured_by_stage_and_level(
    run: Command, trained: Path, folder: Path
) -> None:
    arguments = ["evaluate", trained, "--data", folder, "--metric", "denoising", "--images", 16]
    code, printed, _ = run(*arguments)
    assert code == 0
    assert "optimal denoiser" in printed
    found = results(trained)["denoising"]
    assert len(found["stages"]) == 3
    assert len(found["levels"]) == 24
    assert_refused(run("evaluate", folder, *arguments[2:]), "is a folder")


def test_unknown_metrics_and_extractors_are_refused(run: Command, folder: Path) -> None:
    arguments = ["evaluate", folder, "--data", folder]
    assert_refused(run(*arguments, "--metric", "quality"), "There is no metric quality")
    assert_refused(run(*arguments, "--extractor", "eyes"), "There is no extractor eyes")
    assert_refused(run(*arguments, "--suite", "quick", *METRIC), "not both")


def test_results_that_are_not_a_list_are_not_overwritten(run: Command, folder: Path) -> None:
    (folder / "evaluations.json").write_text("{}")
    assert_refused(run("evaluate", folder, "--data", folder, *METRIC), "not a list of results")
    assert (folder / "evaluations.json").read_text() == "{}"
