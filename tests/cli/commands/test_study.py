"""``multistage study``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from multistage_diffusion.cli.study.execution import Execution
from multistage_diffusion.cli.study.steps import Job, Planner, waves, with_data
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run
from multistage_diffusion.study import read_study
from tests.cli.conftest import Command, assert_refused

EXAMPLES = Path(__file__).parents[3] / "examples" / "studies"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.toml") if path.stem != "common")
SMALL = """
preset = "digits"
data = "digits"
reference = "unified"
images = 512
checkpoints = 2
denoising-images = 16
[train]
batch-size = 64
encoder-widths = [8]
blocks = 1
record-images = 256
[evaluate]
metric = "fd-pixels"
images = 8
real-images = 50
steps = 1
bootstrap = 0
[arms.unified]
train.decoder-widths = [8]
[arms.multistage]
train.decoder-widths = [12, 8, 4]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.slow
def test_a_run_of_a_study_is_trained_measured_and_shown(
    run: Command, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    code, printed, _ = run("study", file, "--out", out, "--only", "unified")
    assert code == 0
    assert "fd-pixels" in printed
    found = json.loads((out / "results.json").read_text())["arms"]
    assert [point["images"] for point in found["unified"]["curves"]["0"]["denoising"]] == [256, 512]
    assert not found["multistage"]["curves"]
    page = (out / "README.md").read_text()
    assert "samples/unified-0.png" in page
    assert (out / "samples" / "unified-0.png").exists()


@pytest.mark.slow
def test_arms_are_trained_for_the_same_cost_measured_and_not_again(
    run: Command, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    code, printed, _ = run("study", file, "--out", out, "--workers", 2)
    assert code == 0
    assert "fd-pixels" in printed
    found = json.loads((out / "results.json").read_text())["arms"]
    ends = {name: arm["curves"]["0"]["fd-pixels"][-1] for name, arm in found.items()}
    assert ends["unified"]["images"] == 512
    assert ends["multistage"]["macs"] == pytest.approx(ends["unified"]["macs"], rel=0.15)
    assert len(found["multistage"]["curves"]["0"]["denoising, stage 3"]) == 2
    page = (out / "README.md").read_text()
    assert "samples/unified-0.png" in page
    assert (out / "samples" / "multistage-0.png").exists()
    figures = sorted(path.name for path in (out / "figures").iterdir())
    assert all(f"figures/{name}" in page for name in figures)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("evaluations.json")}
    assert run("study", file, "--out", out, "--only", "unified")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("evaluations.json")} == before


@pytest.mark.slow
def test_an_interrupted_study_goes_on(file: Path, tmp_path: Path) -> None:
    file.write_text(SMALL.replace("images = 512", "images = 60_000"))
    out = tmp_path / "study"
    command = [sys.executable, "-m", "multistage_diffusion", "study", str(file), "--out", str(out)]
    process = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.PIPE)
    stats = Run(out / "runs" / "unified-0").stats
    while not stats.exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"the same command continues" in printed
    assert Run(out / "runs" / "unified-0").images_seen() > 0
    assert not (out / "runs" / "multistage-0").exists()


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_log(run: Command, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    (out / "runs" / "unified-0").mkdir(parents=True)
    (out / "runs" / "unified-0" / "notes.txt").touch()
    (out / "study.json").write_text("{}")
    refused = run("study", file, "--out", out, "--only", "unified")
    assert refused[0] == 2
    assert "unified-0 stopped in train (see " in refused[2]
    assert "holds notes.txt but no config.json" in refused[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 0], "The setting workers must be at least 1"),
        (["--only", "three"], "no arm or run three"),
        (["--size", "big"], "no size 'big'"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Command, file: Path, tmp_path: Path, arguments: list[object], message: str
) -> None:
    assert_refused(run("study", file, "--out", tmp_path / "out", *arguments), message)
    assert not (tmp_path / "out").exists()


def test_runs_of_another_machine_stand_in_the_tables(
    run: Command, file: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert run("study", file, "--out", theirs, "--tables-only")[0] == 0
    point = {"images": 512, "macs": 9.0, "seconds": 1.0, "processor_seconds": 1.0, "value": 0.5}
    found = json.loads((theirs / "results.json").read_text())
    found["arms"]["unified"]["curves"] = {"7": {"denoising": [point]}}
    (theirs / "results.json").write_text(json.dumps(found))
    code, printed, _ = run("study", file, "--out", ours, "--tables-only", "--merge", theirs)
    assert code == 0
    assert "denoising" in printed
    assert "Seeds: 7." in (ours / "README.md").read_text()


def test_what_cannot_be_merged_is_refused_before_anything_runs(
    run: Command, file: Path, tmp_path: Path
) -> None:
    assert_refused(run("study", file, "--out", tmp_path / "a", "--merge", tmp_path), "study.json")
    longer = tmp_path / "longer.toml"
    longer.write_text(SMALL.replace("images = 512", "images = 1024", 1))
    assert run("study", longer, "--out", tmp_path / "b", "--tables-only")[0] == 0
    refused = run("study", file, "--out", tmp_path / "a", "--merge", tmp_path / "b")
    assert_refused(refused, "differ in images")
    assert not (tmp_path / "a").exists()


def test_a_folder_of_something_else_is_refused(run: Command, file: Path, tmp_path: Path) -> None:
    assert_refused(run("study", file, "--out", tmp_path), "is not the folder of a study")


def test_held_out_images_belong_to_their_data(file: Path) -> None:
    study = replace(read_study(file), held_out_data="b")
    assert with_data(study, None, None).held_out_data == "b"
    assert with_data(study, None, "c").held_out_data == "c"
    assert with_data(study, "a", None).held_out_data is None
    assert with_data(study, "a", "c").data == "a"


def planner(file: Path, text: str) -> Planner:
    file.write_text(SMALL + text)
    return Planner(read_study(file), file.parent)


def test_another_density_of_levels_is_refused_unless_declared(file: Path) -> None:
    other = '[arms.other]\ntrain.decoder-widths = [8, 8, 8]\ntrain.shares = "uniform"\n'
    with pytest.raises(BadInput, match="other draws noise levels with another density"):
        planner(file, other).jobs("other")
    assert planner(file, other + 'density = "own"\n').jobs("other")
    same = "[arms.same]\ntrain.decoder-widths = [8]\ntrain.share-boundaries = [1.0]\n"
    assert planner(file, same).jobs("same")


def test_an_arm_may_not_cost_more_than_the_reference(file: Path) -> None:
    long = "[arms.long]\ntrain.decoder-widths = [8]\nimages = {}\n"
    with pytest.raises(BadInput, match="would see 600 images; the cost of the reference pays"):
        planner(file, long.format(600)).jobs("long")
    assert planner(file, long.format(512)).jobs("long")


def test_only_what_is_asked_for_is_clustered(
    run: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SMALL + '[arms.snr]\ntrain.decoder-widths = [8, 8]\ncluster.method = "snr"\n')
    names: list[str] = []

    def pretend(_: Execution, jobs: Sequence[Job]) -> bool:
        names.extend(job.name for job in jobs)
        return True

    monkeypatch.setattr(Execution, "run", pretend)
    assert run("study", file, "--out", tmp_path / "a", "--only", "unified-0", "multistage")[0] == 0
    assert names == ["unified-0", "multistage-0"]


def test_arms_come_after_those_they_need(file: Path) -> None:
    text = '[arms.a]\nper-stage = "b"\n[arms.b]\ninit = { arm = "unified", images = 100 }\n'
    file.write_text(SMALL + text + "train.decoder-widths = [8, 8, 8]\n")
    assert list(waves(read_study(file))) == [["unified", "multistage"], ["b"], ["a"]]
    file.write_text(SMALL + '[arms.a]\nper-stage = "b"\n[arms.b]\nper-stage = "a"\n')
    with pytest.raises(BadInput, match="need each other"):
        list(waves(read_study(file)))


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_a_study_of_both_sizes(name: str) -> None:
    sizes = [read_study(EXAMPLES / f"{name}.toml", size) for size in ("cpu", "tiny")]
    assert all(study.reference in study.arms for study in sizes)
    assert sizes[0].images > 100 * sizes[1].images


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_example_runs_in_small(run: Command, tmp_path: Path, name: str) -> None:
    file = EXAMPLES / f"{name}.toml"
    assert run("study", file, "--size", "tiny", "--out", tmp_path / name, "--workers", 2)[0] == 0
    found = json.loads((tmp_path / name / "results.json").read_text())["arms"]
    assert all(arm["curves"] for arm in found.values())
