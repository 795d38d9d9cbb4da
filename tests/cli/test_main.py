"""Arguments, exit codes and messages that the commands have in common."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from tests.cli.conftest import Command, Result, assert_refused, contents, training

TRAIN = ("train", "digits", "--data", "digits", "--out", "run", "--decoder-widths", "8")


@pytest.mark.parametrize(
    "arguments",
    [
        ("cluster", "--data", "digits"),
        ("data", "inspect", "digits"),
        TRAIN,
        ("evaluate", "somewhere", "--data", "digits"),
        ("report", "somewhere"),
        ("demo",),
    ],
)
def test_dry_runs_print_the_settings_and_write_nothing(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run(*arguments, "--dry-run")
    assert code == 0
    assert json.loads(printed[: printed.rindex("\n}") + 2] if "\n}" in printed else printed)
    assert list(tmp_path.iterdir()) == []


def test_bad_data_is_refused_by_every_command(
    run: Command, trained: Path, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (folder / "cat" / "zz.png").write_bytes(b"broken")
    before = contents(trained)
    for data, message in (
        (tmp_path / "none", "no folder or file"),
        (tmp_path / "empty", "no images"),
        (folder, "zz.png"),
    ):
        assert_refused(run("cluster", "--data", data, "--out", tmp_path / "s.json"), message)
        assert_refused(run(*training(data, trained)), message)
        assert_refused(run("evaluate", trained, "--data", data), message)
    assert contents(trained) == before
    assert not (tmp_path / "s.json").exists()


def test_commands_read_one_source_alike(
    run: Command, tmp_path: Path, stages: Path, folder: Path
) -> None:
    """The options make the same data of a difficult source everywhere.

    It has images of other sizes, one with alpha and twelve that are broken.
    """
    Image.fromarray(np.zeros((20, 13, 4), dtype=np.uint8)).save(folder / "cat" / "clear.png")
    for index in range(12):
        (folder / "dog" / f"broken{index:02d}.png").write_bytes(b"broken")
    reading = ["--size", 8, 12, "--fit", "pad", "--skip-broken"]
    fingerprint = load(folder, ReadOptions(size=(8, 12), fit="pad", skip_broken=True)).fingerprint
    out = tmp_path / "run"
    found = tmp_path / "s.json"
    of_images = ["--data", folder, *reading]
    drawing = ["--metric", "fd-pixels", "--images", 4, "--steps", 2]
    assert_reported(run("cluster", *of_images, "--method", "snr", "--out", found))
    assert_reported(run(*training(folder, out, *reading, "--stages", stages)))
    assert_reported(run("evaluate", out, *of_images, *drawing))
    assert json.loads(found.read_text())["data"]["fingerprint"] == fingerprint
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["fingerprint"] == fingerprint
    assert config["model"]["shape"] == [3, 8, 12]
    (result,) = json.loads((out / "evaluations.json").read_text())
    assert result["data"]["fingerprint"] == fingerprint
    assert_refused(run("cluster", "--data", folder, "--size", 0), "size must be at least 1")


def assert_reported(result: Result) -> None:
    """Checks that a command succeeded and warned about the images above."""
    code, _, err = result
    assert code == 0, err
    assert "1 of 25 images had transparent parts and were laid on white" in err
    assert err.count("warning: left out") == 10
    assert "warning: and 2 more" in err


def test_a_truncated_model_is_refused(run: Command, trained: Path, folder: Path) -> None:
    model = trained / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    assert_refused(run("sample", trained), "model.safetensors")
    assert_refused(run("evaluate", trained, "--data", folder), "model.safetensors")


def test_missing_runs_are_named(run: Command, tmp_path: Path, folder: Path) -> None:
    assert_refused(run("sample", tmp_path / "none"), "holds no model")
    assert_refused(run("evaluate", tmp_path / "none", "--data", folder), "no run or folder")
    assert_refused(run("report", tmp_path / "none"), "holds no run")


def test_a_setting_out_of_range_is_refused(run: Command, folder: Path) -> None:
    arguments = ["train", "small", "--data", folder, "--out", "run", "--batch-size", "0"]
    message = "multistage: The setting batch_size must be positive"
    assert_refused(run(*arguments), message)
    assert_refused(run("cluster", "--data", folder, "--alpha", "2"), "alpha")
    assert_refused(run("sample", "run", "--steps", "0"), "steps must be at least 1")


@pytest.mark.parametrize(
    "arguments",
    [[], ["train"], ["train", "huge"], ["sample"], ["cluster", "--alpha", "x"], ["fly"]],
)
def test_unreadable_arguments_are_reported_in_one_line(run: Command, arguments: list[str]) -> None:
    assert_refused(run(*arguments), "")


def test_lines_of_tables_have_no_spaces_at_the_end(run: Command) -> None:
    code, printed, _ = run("plan", "digits", "--no-measure")
    assert code == 0
    assert printed.splitlines() == [line.rstrip() for line in printed.splitlines()]
