"""``multistage data inspect`` and the preview of ``multistage train``, as a user types them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.cli import main, parse
from tests.cli.conftest import SHORT, TINY, contents
from tests.cli.conftest import Command as Run
from tests.inspection.conftest import mixed

__all__ = ["mixed"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_broken_files_are_listed_and_the_code_says_so(run: Run, mixed: Path, here: Path) -> None:
    code, printed, err = run("data", "inspect", "photos")
    assert code == 2
    assert "photos/cat/cut.png" in printed
    assert "multistage: 2 of 16 images are broken; cluster and train refuse them" in err
    out = here / "inspection-photos"
    assert {path.name for path in out.iterdir()} == {
        "contact-sheet.png",
        "inspection.json",
        "broken.txt",
        "duplicates.txt",
    }
    assert [line.split(":")[0] for line in (out / "broken.txt").read_text().splitlines()] == [
        "photos/cat/cut.png",
        "photos/dog/text.jpg",
    ]
    found = json.loads((out / "inspection.json").read_text())
    assert found["images"] == 14
    assert f"{found['sigma_data']:.4f}" in printed
    assert found["commands"] == [
        line for line in printed.splitlines() if line.startswith("multistage ")
    ]
    assert run("data", "inspect", "photos", "--skip-broken")[0] == 0


def test_the_printed_commands_work(run: Run, mixed: Path, here: Path) -> None:
    _, printed, _ = run("data", "inspect", "photos", "--size", 16)
    commands = [
        shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("multistage ")
    ]
    assert commands
    for command in commands:
        assert parse(command)
    (train,) = (command for command in commands if command[0] == "train")
    assert "--skip-broken" in train
    assert run(*(word for word in train if "stages" not in word), *TINY, *SHORT)[0] == 0


def test_only_an_earlier_inspection_of_the_same_data_is_replaced(
    run: Run, mixed: Path, here: Path
) -> None:
    assert run("data", "inspect", "photos", "--out", "seen")[0] == 2
    for name in ("cat/cut.png", "dog/text.jpg"):
        (mixed / name).unlink()
    code, printed, _ = run("data", "inspect", "photos", "--out", "seen")
    assert code == 0
    assert "replaced the earlier inspection" in printed
    assert not (here / "seen" / "broken.txt").exists()
    before = contents(here)
    for data, out in (("digits", "seen"), ("photos", "photos"), ("photos", "seen/inspection.json")):
        code, printed, err = run("data", "inspect", data, "--out", out)
        assert (code, printed) == (2, "")
        assert "choose another --out" in err
    assert contents(here) == before


def test_the_sheet_is_the_same_each_time(run: Run, mixed: Path, here: Path) -> None:
    for out in ("a", "b"):
        run("data", "inspect", "photos", "--out", out)
    assert (here / "a" / "contact-sheet.png").read_bytes() == (
        here / "b" / "contact-sheet.png"
    ).read_bytes()
    assert (here / "a" / "inspection.json").read_bytes() == (
        here / "b" / "inspection.json"
    ).read_bytes()


def test_labels_are_printed_as_they_are(run: Run, here: Path) -> None:
    for name in ("[red]one", "two"):
        (here / "odd" / name).mkdir(parents=True)
        Image.fromarray(
            np.random.default_rng(len(name)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        ).save(here / "odd" / name / "1.png")
    code, printed, _ = run("data", "inspect", "odd")
    assert code == 0
    assert re.search(r"^\[red\]one +1 ", printed, re.MULTILINE)


def train(*more: object) -> list[object]:
    return [
        "train",
        "small",
        "--data",
        "photos",
        "--size",
        16,
        "--skip-broken",
        "--out",
        "run",
        *TINY,
        *SHORT,
        *more,
    ]


def test_train_leaves_a_preview_even_when_dry(run: Run, mixed: Path, here: Path) -> None:
    code, printed, _ = run(*train("--dry-run"))
    assert code == 0
    assert "run/preview.png" in printed
    assert [path.name for path in (here / "run").iterdir()] == ["preview.png"]
    dry = (here / "run" / "preview.png").read_bytes()
    assert run(*train("--dry-run", "--fit", "pad"))[0] == 0
    assert (here / "run" / "preview.png").read_bytes() != dry
    code, printed, _ = run(*train())
    assert code == 0
    assert "run/preview.png" in printed
    assert (here / "run" / "preview.png").read_bytes() == dry
    code, printed, _ = run(*train("--images", 48))
    assert code == 0
    assert "preview" not in printed


def test_a_preview_replaces_nothing_else(run: Run, mixed: Path, here: Path) -> None:
    (here / "run").mkdir()
    Image.new("RGB", (4, 4)).save(here / "run" / "preview.png")
    before = contents(here)
    for dry in ((), ("--dry-run",)):
        code, _, err = run(*train(*dry))
        assert code == 2
        assert "is no preview" in err
    (here / "run" / "mine.txt").write_text("mine")
    (here / "run" / "preview.png").unlink()
    code, _, err = run(*train("--dry-run"))
    assert code == 0
    assert "holds mine.txt" in err
    assert not (here / "run" / "preview.png").exists()
    assert before


def test_data_needs_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 2
    assert "inspect" in capfd.readouterr().err
