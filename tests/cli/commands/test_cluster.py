"""``multistage cluster``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.optimal import PairDenoiser
from tests.cli.conftest import Command, assert_refused


def test_it_writes_a_stages_file_and_prints_a_table(run: Command, tmp_path: Path) -> None:
    out = tmp_path / "results" / "stages.json"
    arguments = ["--data", "digits", "--pairs", 16, "--levels", 17, "--out", out]
    code, printed, _ = run("cluster", *arguments)
    assert code == 0
    stages = json.loads(out.read_text())
    assert stages["boundaries"] == sorted(stages["boundaries"])
    assert stages["parameters"]["pairs"] == 16
    assert f"{stages['boundaries'][0]:.4g}" in printed
    assert "share" in printed


def test_where_there_are_no_stages_other_settings_may_follow(run: Command, tmp_path: Path) -> None:
    """The sums of the settings that failed are not in the way."""
    arguments = ["cluster", "--data", "digits", "--levels", 17, "--pairs", 16]
    out = tmp_path / "s.json"
    code, _, error = run(*arguments, "--eta", 1.0, "--out", out)
    assert code == 2
    assert "two stages (--stages 2)" in error
    assert run(*arguments, "--out", out)[0] == 0


def test_it_continues_from_partial_sums(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multistage_diffusion.clustering.curves.CHUNK_PAIRS", 8)
    arguments = ["cluster", "--data", "digits", "--levels", 17, "--pairs", 40]
    whole = tmp_path / "whole.json"
    out = tmp_path / "s.json"
    assert run(*arguments, "--out", whole)[0] == 0
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert run(*arguments, "--out", out)[0] == 130
    assert_refused(
        run(*arguments, "--eta", 0.1, "--out", out), "partial sums of other data or settings"
    )
    code, printed, _ = run(*arguments, "--out", out)
    assert code == 0
    assert "continuing from 24 pairs" in printed
    assert out.read_text() == whole.read_text()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["s.json", "s.svg", "whole.json", "whole.svg"]


def interrupt_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the optimal denoiser be called some times; after that it interrupts the command."""
    original = PairDenoiser.by_level
    left = iter(range(calls))

    def interrupted(self: PairDenoiser, *tensors: torch.Tensor) -> Iterator[torch.Tensor]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *tensors)

    monkeypatch.setattr(PairDenoiser, "by_level", interrupted)


@pytest.mark.slow
def test_it_uses_the_gradients_of_a_run(
    run: Command, trained: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.json"
    arguments = ["cluster", "--data", folder, "--pairs", 16, "--levels", 8]
    arguments += ["--method", "gradient", "--out", out]
    assert_refused(run(*arguments), "--checkpoint")
    code, printed, _ = run(*arguments, "--checkpoint", trained)
    assert code == 0
    stages = json.loads(out.read_text())
    assert len(stages["boundaries"]) == 2
    assert len(stages["parameters"]["checkpoint"]) == 16
    np.testing.assert_allclose(np.diag(stages["curves"]["cosines"]), 1)
    assert "cosine of the gradients" in out.with_suffix(".svg").read_text()
    assert "16 pairs" in printed


def test_it_does_not_overwrite_another_file(run: Command, tmp_path: Path) -> None:
    out = tmp_path / "stages.json"
    arguments = ["cluster", "--data", "digits", "--levels", 17]
    assert run(*arguments, "--out", out, "--pairs", 8)[0] == 0
    before = out.read_bytes()
    assert "already" in run(*arguments, "--out", out, "--pairs", 8)[1]
    assert_refused(run(*arguments, "--out", out, "--pairs", 9), "holds something else")
    assert_refused(run(*arguments, "--out", tmp_path), "holds something else")
    assert out.read_bytes() == before


def test_clustering_by_similarity_prints_its_criterion(run: Command, tmp_path: Path) -> None:
    out = tmp_path / "stages.json"
    arguments = ["--data", "digits", "--pairs", 8, "--levels", 12, "--stages", 4, "--out", out]
    code, printed, _ = run("cluster", *arguments)
    assert code == 0
    assert "similarity within stages by their number: 1: 0." in printed
    assert len(json.loads(out.read_text())["boundaries"]) == 3
    assert (tmp_path / "stages.svg").read_text().startswith("<svg")
