"""``multistage plan``."""

from pathlib import Path

from tests.cli.conftest import TINY, Command, assert_refused


def test_it_prints_the_price(run: Command, stages: Path) -> None:
    code, printed, _ = run("plan", "digits", "--stages", stages, *TINY)
    assert code == 0
    for name in (
        "MACs for a training image",
        "activations, batch of 128",
        "time for the run of 200,000 images",
        "decoders 12/8/4",
    ):
        assert name in printed


def test_it_keeps_a_budget(run: Command) -> None:
    code, printed, _ = run("plan", "small", "--budget", "0.9x", "--budget-for", "heun")
    assert code == 0
    assert "at most 0.9x the unified network's cost in heun: --decoder-widths 32 24 24" in printed
    assert_refused(
        run("plan", "small", "--budget", "much"), "multiple of the unified network's cost"
    )
    assert_refused(run("plan", "small", "--decoder-widths", 8, 8), "3 stages")
