"""``multistage train``."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import SHORT, UNIFIED, Command, assert_refused, contents, training


def test_a_run_is_complete(trained: Path) -> None:
    names = {path.relative_to(trained).as_posix() for path in contents(trained)}
    assert {"config.json", "stages.json", "stats.jsonl", "model.safetensors"} <= names
    assert "checkpoints/000000000032/model.safetensors" in names
    assert len((trained / "stats.jsonl").read_text().splitlines()) == 4


def test_without_stages_the_network_is_unified(run: Command, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run"
    assert run("train", "small", "--data", folder, "--out", out, *UNIFIED, *SHORT)[0] == 0
    assert json.loads((out / "config.json").read_text())["model"]["boundaries"] == []


def test_stages_and_decoders_must_agree(
    run: Command, tmp_path: Path, folder: Path, stages: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "small", "--data", folder, "--out", out]
    widths = ["--decoder-widths", "8", "8"]
    message = "number of stages is 3, that of decoders 2"
    assert_refused(run(*arguments, *widths), message)
    assert_refused(run(*arguments, "--stages", stages, *widths), message)
    stages.write_text(json.dumps({"boundaries": [2.5, 0.3]}))
    assert_refused(run(*arguments, "--stages", stages), "increasing")
    assert_refused(run(*arguments, "--stages", tmp_path / "no.json"), "no.json")
    assert not out.exists()


def test_an_existing_run_with_another_configuration_is_refused(
    run: Command, trained: Path, stages: Path, folder: Path
) -> None:
    before = contents(trained)
    arguments = training(folder, trained, "--stages", stages)
    assert_refused(run(*arguments, "--seed", 5), "training.seed is 0 there, 5 here")
    stages.write_text(json.dumps({"boundaries": [0.4, 2.5]}))
    assert_refused(run(*arguments), "model.boundaries")
    assert contents(trained) == before


def test_stages_of_other_images_or_out_of_reach_cause_warnings(
    run: Command, tmp_path: Path, folder: Path, stages: Path
) -> None:
    stages.write_text(json.dumps({"boundaries": [0.3, 152.1], "data": {"fingerprint": "other"}}))
    _, _, err = run(*training(folder, tmp_path / "run", "--stages", stages))
    assert "warning: stage 3 gets less than one in 10,000 images" in err
    assert "was made from other images" in err


def test_images_that_cannot_be_halved_often_enough_are_refused(
    run: Command, tmp_path: Path
) -> None:
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "odd.png")
    arguments = ["--decoder-widths", "8", "--out", tmp_path / "run"]
    assert_refused(run("train", "small", "--data", tmp_path, *arguments), "divisible by 4")
    assert not (tmp_path / "run").exists()


def test_another_stages_file_in_a_new_run_is_refused(
    run: Command, tmp_path: Path, folder: Path, stages: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "stages.json").write_text("mine")
    assert_refused(run(*training(folder, out, "--stages", stages)), "holds something else")
    assert [path.name for path in out.iterdir()] == ["stages.json"]


def test_a_file_in_place_of_the_run_is_refused(run: Command, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run"
    out.write_text("mine")
    code, _, err = run("train", "small", "--data", folder, "--out", out, *UNIFIED, *SHORT)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert out.read_text() == "mine"
