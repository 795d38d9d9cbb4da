"""What slips through still ends in one line, and what is shown cannot steer a terminal."""

import io
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multistage_diffusion.cli import main
from multistage_diffusion.cli.commands import report
from multistage_diffusion.cli.streams import prepare_streams
from multistage_diffusion.errors import BadInput
from tests.cli.conftest import Command, assert_refused, contents


def failing(error: Exception) -> object:
    def render(_: object) -> str:
        raise error

    return render


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "7.28 TiB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried 3 GiB"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "--batch-size"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OSError(36, "File name too long", "xxx"), "xxx: File name too long"),
        (BrokenPipeError(32, "Broken pipe"), "standard output: Broken pipe"),
    ],
)
def test_failures_of_the_machine_become_one_line(
    run: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr(report, "render", failing(error))
    assert_refused(run("report", "somewhere"), message)
    code, _, err = run("report", "somewhere", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert message in err.splitlines()[-1]


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "render", failing(RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        main(["report", "somewhere"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster", "--data", "digits", "--out", ""], "after --out is empty"),
        (["data", "inspect", ""], "after inspect is empty"),
        (["report", "a\0b"], "zero byte"),
    ],
)
def test_words_that_are_no_value_are_refused(run: Command, words: list[str], message: str) -> None:
    assert_refused(run(*words), message)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_names_that_are_too_long_are_refused(run: Command, folder: Path, name: str) -> None:
    before = contents(folder)
    assert_refused(run("cluster", "--data", folder, "--method", "snr", "--out", name), "too long")
    assert_refused(run("sample", name), "too long")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', not a number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK is 2"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is ''"),
    ],
)
def test_variables_of_a_launcher_are_checked(
    run: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_refused(run("report", "somewhere"), message)


def test_control_characters_do_not_reach_the_terminal(run: Command, folder: Path) -> None:
    (folder / "cat" / "red\x1b[31m\nname.png").write_bytes(b"broken")
    out = folder.parent / "found"
    code, printed, err = run("data", "inspect", folder, "--out", out)
    assert code == 2
    assert "red\\x1b[31m" in printed
    for text in (printed, err, (out / "broken.txt").read_text()):
        assert "\x1b" not in text
        assert not any(line.startswith("name.png") for line in text.splitlines())
    assert_refused(run("cluster", "--data", folder), "red\\x1b[31m name.png")


def test_warnings_of_the_library_are_single_lines(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(_: object) -> str:
        logging.getLogger("multistage_diffusion.training").warning("%s is damaged", "a\x1b[0m\nb")
        raise BadInput("Stopped.")

    monkeypatch.setattr(report, "render", render)
    _, _, err = run("report", "somewhere")
    assert err == "multistage: warning: a\\x1b[0m b is damaged\nmultistage: Stopped.\n"


def test_output_to_a_file_of_windows_takes_all_characters(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="cp1252"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    (folder / "cat").rename(folder / "caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    (folder / "dog").rename(folder / "\N{CJK UNIFIED IDEOGRAPH-65E5}")
    prepare_streams()
    assert main(["data", "inspect", str(folder), "--out", str(folder.parent / "found")]) == 0
    printed = output.getvalue().decode("cp1252")
    assert "caf\N{LATIN SMALL LETTER E WITH ACUTE}  " in printed
    assert "?  " in printed
    assert "#####" in printed


@pytest.mark.slow
def test_the_command_line_starts_without_what_windows_lacks() -> None:
    code = (
        "import sys; sys.modules.update(resource=None, fcntl=None);"
        "from multistage_diffusion.cli import main;"
        "from multistage_diffusion.cli.discovery import command_names, command_type;"
        "[command_type(name) for name in command_names()]"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert found.returncode == 0, found.stderr


def test_workers_that_import_the_program_do_not_run_it() -> None:
    """Under spawn rules a worker imports the main module under another name."""
    assert "entry" in runpy.run_module("multistage_diffusion.__main__", run_name="__mp_main__")
