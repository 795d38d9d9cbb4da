"""Files that the program wrote and someone edited: named with the field, and never rewritten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.cli import main
from tests.cli.conftest import Command, assert_refused, contents, training

Edit = Callable[[Any], Any]


def changed(path: Path, edit: Edit) -> None:
    """Writes what a function makes of the JSON in a file."""
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def with_value(value: Any, *keys: Any) -> Edit:
    """Puts a value somewhere, or takes one away."""

    def edit(content: Any) -> Any:
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if value is MISSING:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        return content

    return edit


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, stages and a run, which is trained once."""
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(0)
    for index in range(12):
        target = root / "images" / f"{index}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(source.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)
    (root / "stages.json").write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    words = training(root / "images", root / "run", "--stages", root / "stages.json")
    assert main([str(word) for word in words]) == 0
    return root


@pytest.fixture
def folder(world: Path) -> Path:
    """The images of the run."""
    return world / "images"


@pytest.fixture
def trained(world: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(world / "run", tmp_path / "run"))


MISSING = object()
WHOLE = {
    "UTF-16 without a mark": '{"a": 1}'.encode("utf-16-le"),
    "half a line": b'{"boundaries": [0.3, ',
    "nested": b"[" * 100_000,
    "empty": b"",
    "no text": b"\xff\xfe\xfd",
    "large number": b'{"boundaries": [1' + b"0" * 5000 + b"]}",
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_a_stages_file_that_is_none_is_named(
    run: Command, tmp_path: Path, folder: Path, content: bytes
) -> None:
    path = tmp_path / "stages.json"
    path.write_bytes(content)
    assert_refused(run("plan", "small", "--no-measure", "--stages", path), f"{path}")
    cluster = run("cluster", "--data", folder, "--method", "snr", "--out", path)
    assert_refused(cluster, f"{path}")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_value(MISSING, "boundaries"), "boundaries: Field required"),
        (with_value("0.3", "boundaries", 0), r"boundaries.0: Input should be a valid number"),
        (with_value(float("nan"), "boundaries", 0), "boundaries must be positive"),
        (with_value([2, 1], "boundaries"), "increasing"),
        (with_value("x", "data", "shape"), "data.shape"),
        (with_value([3, 0, 8], "data", "shape"), "shape must be at least 1"),
        (with_value([1.0], "curves", "sigma"), "curves"),
    ],
)
def test_a_field_of_a_stages_file_is_named(
    run: Command, stages: Path, edit: Edit, message: str
) -> None:
    about = {"fingerprint": "a", "images": 3, "shape": [3, 8, 8]}
    stages.write_text(
        json.dumps({"boundaries": [0.3, 2.5], "data": about, "curves": {"sigma": [0.1, 1.0]}})
    )
    changed(stages, edit)
    result = run("plan", "small", "--no-measure", "--stages", stages)
    assert_refused(result, f"{stages} is invalid")
    assert message in result[2]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("config.json", with_value(MISSING, "training"), "training: Field required"),
        ("config.json", with_value("x", "training", "batch_size"), "training.batch_size"),
        ("config.json", with_value(-1, "model", "network", "heads"), "heads must be at least 1"),
        ("config.json", with_value([1, 0.5], "model", "boundaries"), "increasing"),
        ("stages.json", with_value({}, "boundaries"), "boundaries"),
        ("evaluations.json", lambda _: {}, "not a list of results"),
        ("evaluations.json", with_value("good", 0, "value"), "result 0 is invalid"),
        ("evaluations.json", with_value(MISSING, 0, "metric"), "metric: Field required"),
        ("samples/samples.json", with_value(None, "trained_images"), "trained_images"),
        ("samples/samples.json", with_value(3, "options"), "options"),
    ],
)
def test_a_field_of_a_file_of_a_run_is_named(
    run: Command, trained: Path, name: str, edit: Edit, message: str
) -> None:
    result = {"metric": "fd-pixels", "value": 1.0, "interval": None, "images": 2, "samples": "a"}
    data = {"path": "images", "fingerprint": "a", "images": 12}
    (trained / "evaluations.json").write_text(json.dumps([{**result, "data": data}]))
    (trained / "samples").mkdir()
    note = {"options": {}, "trained_images": 32, "config": {}}
    (trained / "samples" / "samples.json").write_text(json.dumps(note))
    changed(trained / name, edit)
    before = contents(trained)
    page = run("report", trained)
    assert_refused(page, f"{trained / name}")
    assert message in page[2]
    assert contents(trained) == before


def test_results_that_are_not_understood_stay(run: Command, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "images")
    folder = tmp_path / "images"
    path = folder / "evaluations.json"
    for content in ('[{"metric": 3}]', "[1]", '[{"metric": "a", "value": "b"}]', "[" * 5000):
        path.write_text(content)
        found = run("evaluate", folder, "--data", folder, "--metric", "fd-pixels")
        assert_refused(found, f"{path}")
        assert path.read_text() == content


@pytest.mark.parametrize("edit", ["half", "words", "stages", "nested"])
def test_a_damaged_record_is_named_by_its_line(
    run: Command, trained: Path, folder: Path, stages: Path, edit: str
) -> None:
    path = trained / "stats.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    lines[1] = {
        "half": lines[1][:40],
        "words": json.dumps(record | {"images": "many"}),
        "stages": json.dumps(record | {"loss": [0.1]}),
        "nested": '{"images": ' + "[" * 50_000,
    }[edit]
    path.write_text("\n".join(lines) + "\n")
    before = contents(trained)
    assert_refused(run("report", trained), "stats.jsonl, line 2")
    again = training(folder, trained, "--stages", stages, "--images", 48)
    code, _, err = run(*again)
    assert code == 2
    assert "stats.jsonl, line 2" in err.splitlines()[-1]
    assert "losses follow" not in err
    assert contents(trained) == before


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_records_keep_what_is_not_known(
    run: Command, trained: Path, folder: Path, stages: Path
) -> None:
    path = trained / "stats.jsonl"
    lines = [json.dumps(json.loads(line) | {"note": "mine"}) for line in _lines(path)]
    path.write_text("\n".join(lines) + "\n")
    assert run(*training(folder, trained, "--stages", stages, "--images", 40))[0] == 0
    notes = [json.loads(line).get("note") for line in _lines(path)]
    assert notes == ["mine"] * len(lines) + [None]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_value(MISSING, "images"), "images: Field required"),
        (with_value([1.0], "loss"), "it needs a loss for each sigma"),
        (with_value(0.0, "probe", "sigma", 0), "positive"),
        (with_value("x", "probe"), "probe"),
    ],
)
def test_a_field_of_the_learned_curve_is_named(
    run: Command, trained: Path, edit: Edit, message: str
) -> None:
    losses = {"sigma": [0.1, 1.0], "loss": [1.0, 2.0]}
    path = trained / "uncertainty.json"
    path.write_text(json.dumps({"images": 32, **losses, "probe": losses}))
    changed(path, edit)
    assert_refused(run("report", trained), f"{path} is invalid")
    assert message in run("report", trained)[2]
