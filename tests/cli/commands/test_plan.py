"""``multistage plan``."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Command, assert_refused


def test_it_prints_the_price(run: Command, stages: Path) -> None:
    code, printed, _ = run("plan", "digits", "--stages", stages, *TINY, "--processes", 8)
    assert code == 0
    (balance,) = re.findall(r"^balance: (0\.\d\d|1\.00)$", printed, re.MULTILINE)
    assert float(balance) >= 0.95
    for name in (
        "MACs for a training image",
        "activations, batch of 128",
        "time for the run of 200,000 images",
        "decoders 12/8/4",
    ):
        assert name in printed


@pytest.mark.slow
def test_it_keeps_a_budget(run: Command) -> None:
    code, printed, _ = run("plan", "small", "--budget", "0.9x", "--budget-for", "heun")
    assert code == 0
    assert "at most 0.9x the unified network's cost in heun: --decoder-widths 32 24 24" in printed
    assert_refused(
        run("plan", "small", "--budget", "much"), "multiple of the unified network's cost"
    )
    assert_refused(run("plan", "small", "--decoder-widths", 8, 8), "3 stages")
