"""Commands whose settings ask for more memory than there is."""

from pathlib import Path

import pytest

from multistage_diffusion import cost, memory
from tests.cli.conftest import Command, assert_refused


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-size", 10**12],
        ["--decoder-widths", 65_536, 65_536, 65_536, "--channel-mult", 64, 64],
    ],
)
def test_training_that_does_not_fit_is_refused_before_anything_is_written(
    run: Command, folder: Path, tmp_path: Path, options: list[object]
) -> None:
    out = tmp_path / "run"
    words = ["train", "small", "--data", folder, "--out", out, "--encoder-widths", 8]
    assert_refused(run(*words, *options), "GiB are free")
    assert not out.exists()


def test_samples_that_do_not_fit_are_refused(
    run: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (memory, cost):
        monkeypatch.setattr(module, "free_memory", lambda _: 2**26)
    out = tmp_path / "samples"
    many = ["--images", 4096, "--batch-size", 4096]
    assert_refused(run("sample", trained, "--out", out, *many), "smaller --batch-size")
    assert not list(out.glob("*.png"))
