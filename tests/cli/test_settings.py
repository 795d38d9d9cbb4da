"""Every setting that is a number has bounds, and they are checked before anything else."""

import pytest

from multistage_diffusion.cli.discovery import command_names, command_type
from multistage_diffusion.sampling.options import SETTINGS as SOLVER_SETTINGS
from tests.cli.conftest import Command, assert_refused
from tests.fuzz.settings import numbers
from tests.fuzz.test_fuzz import command_class

TRAIN = ["train", "small", "--data", "nowhere", "--out", "out"]
SAMPLE = ["sample", "nowhere"]
CLUSTER = ["cluster", "--data", "nowhere"]
OTHERWISE = {"label", "guidance_range", "value_range", *SOLVER_SETTINGS}
"""Settings that are checked against the model, each other or the solver."""


@pytest.mark.parametrize("name", command_names())
def test_no_number_is_without_bounds(name: str) -> None:
    for setting in numbers(command_class(command_type(name))):
        assert setting.bounded or setting.name in OTHERWISE, setting


@pytest.mark.parametrize(
    ("words", "option", "values"),
    [
        (TRAIN, "norm-eps", ["-1"]),
        (TRAIN, "heads", ["-1"]),
        (TRAIN, "group-channels", ["0"]),
        (TRAIN, "embedding-mult", ["-3"]),
        (TRAIN, "blocks", ["1000000"]),
        (TRAIN, "channel-mult", ["1"] * 4000),
        (TRAIN, "decoder-widths", ["1000000"]),
        (TRAIN, "posthoc-ema", ["1e-300"]),
        (TRAIN, "resample-filter", ["1", "-1"]),
        (TRAIN, "batch-size", ["1" + "0" * 400]),
        (SAMPLE, "steps", ["1000000"]),
        (SAMPLE, "images", ["1000000000000000000"]),
        (SAMPLE, "levels", ["1e300", "1"]),
        (SAMPLE, "seed", ["-1"]),
        (CLUSTER, "pairs", ["1000000"]),
        (CLUSTER, "levels", ["1000000"]),
        (CLUSTER, "eta", ["nan"]),
        (["plan", "small"], "shape", ["3", "0", "8"]),
        (["demo"], "samples", ["-3"]),
    ],
)
def test_a_setting_is_named_before_anything_is_read(
    run: Command, words: list[str], option: str, values: list[str]
) -> None:
    """What it is to be read from is not there."""
    result = run(*words, f"--{option}", *values)
    assert_refused(result, option.replace("-", "_"))


@pytest.mark.parametrize(
    "budget", ["1e999nfe", "1e300GMAC", "nannfe", "0s", "-1nfe", "1e-300s", "", "nfe", "x" * 300]
)
def test_budgets_of_samples_are_checked(run: Command, budget: str) -> None:
    assert_refused(run("schedule", "nowhere", "--budget", budget), "")


@pytest.mark.parametrize("budget", ["1e300x", "1e-300x", "nan", "inf", "-1x", "1000000x"])
def test_budgets_of_networks_are_checked(run: Command, budget: str) -> None:
    assert_refused(run("plan", "small", "--budget", budget), "multiple of the unified network")
