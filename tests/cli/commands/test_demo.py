"""``multistage demo``."""

from pathlib import Path

import pytest

from multistage_diffusion.data import Images, load
from multistage_diffusion.evaluation.recognition import recognise
from tests.cli.conftest import Command, contents

FILES = (
    "stages.json",
    "model.safetensors",
    "samples/000011.png",
    "samples.png",
    "report.html",
    "samples/memorisation.png",
    "stats.jsonl",
)


def test_it_trains_samples_and_reports(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    out = Path("runs") / "demo-quick"
    arguments = ["demo", "--quick", "--open", "--images", 256, "--samples", 12]
    code, printed, _ = run(*arguments)
    assert code == 0
    assert printed.splitlines()[-1] == f"wrote {out / 'report.html'}"
    assert opened == [(tmp_path / out / "report.html").as_uri()]
    for name in FILES:
        assert (out / name).exists(), name
    assert "copies of real digits" in printed
    assert "without --quick" in printed
    before = samples(out)
    assert run(*arguments)[0] == 0
    after = samples(out)
    assert {path: after[path] for path in before} == before


def samples(out: Path) -> dict[Path, bytes]:
    files = contents(out / "samples")
    return {path: data for path, data in files.items() if path.suffix == ".png"}


@pytest.mark.slow
def test_its_samples_are_digits_of_all_classes_and_no_copies(
    run: Command, digits: Images, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    assert run("demo", "--out", out)[0] == 0
    generated = load(out / "samples")
    result = recognise(digits, generated)
    assert len(generated) == 500
    assert abs(result.generated - result.real) < 0.05
    assert all(0.04 <= share <= 0.20 for share in result.shares)
    assert result.copies < 0.05
