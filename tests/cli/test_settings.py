"""Every setting that is a number has bounds, and they are checked before anything else."""

from pathlib import Path

import pytest

from multistage_diffusion.cli.discovery import command_names, command_type
from tests.cli.conftest import Command, assert_refused, contents
from tests.fuzz.settings import numbers
from tests.fuzz.test_fuzz import command_class

REQUIRED = {
    "train": ["train", "small", "--data", "nowhere", "--out", "out"],
    "sample": ["sample", "nowhere"],
    "evaluate": ["evaluate", "nowhere", "--data", "nowhere"],
    "cluster": ["cluster", "--data", "nowhere"],
    "schedule": ["schedule", "nowhere", "--budget", "2nfe"],
    "plan": ["plan", "small"],
    "ema": ["ema", "nowhere", "--out", "out"],
    "demo": ["demo"],
    "convert": ["convert", "nowhere", "--out", "out"],
    "study": ["study", "nowhere", "--out", "out"],
    "data": ["data", "inspect", "nowhere"],
}
UNCHECKED = {"--label"}  # which are compared with the classes of the model


def settings() -> list[tuple[str, str, type, int]]:
    return [
        (name, *setting)
        for name in command_names()
        if name != "report"
        for setting in numbers(command_class(command_type(name)))
        if setting[0] not in UNCHECKED
    ]


@pytest.mark.parametrize("name", REQUIRED)
def test_no_number_is_without_bounds(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing is there to be read: what is refused is refused by the setting alone."""
    monkeypatch.chdir(tmp_path)
    for command, option, kind, count in settings():
        if command != name:
            continue
        for value in ("1" + "0" * 30, "1" + "0" * 400) if kind is int else ("nan", "1e300"):
            result = run(*REQUIRED[name], option, *[value] * count)
            assert_refused(result, "")
            setting = option.removeprefix("--")
            known = setting.replace("-", "_") in result[2] or option in result[2]
            assert known or setting in ("freeze",), result[2]
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("norm-eps", ["-1"]),
        ("heads", ["-1"]),
        ("group-channels", ["0"]),
        ("embedding-mult", ["-3"]),
        ("blocks", ["1000000"]),
        ("channel-mult", ["1"] * 4000),
        ("decoder-widths", ["1000000"]),
        ("posthoc-ema", ["1e-300"]),
        ("resample-filter", ["1", "-1"]),
    ],
)
def test_settings_of_networks_and_training_are_named(
    run: Command, option: str, values: list[str]
) -> None:
    result = run(*REQUIRED["train"], f"--{option}", *values)
    assert_refused(result, option.replace("-", "_"))


@pytest.mark.parametrize(
    "budget", ["1e999nfe", "1e300GMAC", "nannfe", "0s", "-1nfe", "1e-300s", "", "nfe", "x" * 300]
)
def test_budgets_of_samples_are_checked(run: Command, budget: str) -> None:
    assert_refused(run("schedule", "nowhere", "--budget", budget), "")


@pytest.mark.parametrize("budget", ["1e300x", "1e-300x", "nan", "inf", "-1x", "1000000x"])
def test_budgets_of_networks_are_checked(run: Command, budget: str) -> None:
    assert_refused(run("plan", "small", "--budget", budget), "multiple of the unified network")
