"""Two commands at once in one folder: the second one says who is there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from multistage_diffusion.cli.holding import holding
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import holder_file, lock_file
from tests.cli.conftest import Command, assert_refused, contents, training


def test_a_second_command_is_told_who_is_there(tmp_path: Path) -> None:
    message = rf"{tmp_path} is in use by another multistage train, process {os.getpid()} on "
    with (
        holding(tmp_path, "train"),
        pytest.raises(BadInput, match=message),
        holding(tmp_path, "train"),
    ):
        raise AssertionError("two commands at once")
    assert contents(tmp_path) == {}
    with holding(tmp_path, "train"), holding(tmp_path, "evaluate"):
        pass


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    def refuse() -> None:
        raise BadInput("Nothing to do.")

    with pytest.raises(BadInput, match="Nothing"), holding(tmp_path / "new", "sample"):
        refuse()
    assert not (tmp_path / "new").exists()


def test_what_a_killed_command_left_behind_keeps_nobody_out(tmp_path: Path) -> None:
    lock_file(tmp_path, "train").write_text("")
    holder_file(tmp_path, "train").write_text("process 1 on elsewhere")
    with holding(tmp_path, "train"):
        assert f"process {os.getpid()} on " in holder_file(tmp_path, "train").read_text()


def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unsupported:
        def __init__(self, _: Path) -> None:
            """Takes a path as a lock does."""

        def acquire(self, blocking: bool) -> None:
            raise NotImplementedError

    monkeypatch.setattr(filelock, "FileLock", Unsupported)
    with holding(tmp_path, "train"):
        pass
    assert "without locks" in capsys.readouterr().err


def test_each_command_of_a_run_is_alone(
    run: Command, trained: Path, folder: Path, stages: Path
) -> None:
    commands = {
        "train": training(folder, trained, "--stages", stages, "--images", 40),
        "sample": ["sample", trained, "--images", 1, "--steps", 1],
        "evaluate": ["evaluate", trained, "--data", folder, "--metric", "denoising"],
    }
    (trained / "samples").mkdir()
    for name, words in commands.items():
        place = trained / "samples" if name == "sample" else trained
        with filelock.FileLock(lock_file(place, name)):
            before = contents(trained)
            assert_refused(run(*words), f"in use by another multistage {name}")
            assert contents(trained) == before


def test_each_stages_file_has_a_lock_of_its_own(tmp_path: Path, run: Command, folder: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    words = ["cluster", "--data", folder, "--method", "snr", "--out"]
    with holding(one, "cluster", file=True):
        assert_refused(run(*words, one), f"{one} is in use by another multistage cluster, process")
        assert run(*words, other)[0] == 0
    assert run(*words, one)[0] == 0
    assert not list(tmp_path.glob(".*"))


def test_studies_and_autoencoders_are_alone(tmp_path: Path, run: Command, folder: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "studies" / "numbers.toml"
    commands = {
        "study": ["study", example, "--tables-only"],
        "autoencoder": ["autoencoder", "kl-f2", "--data", folder],
    }
    for name, words in commands.items():
        out = tmp_path / name
        with holding(out, name):
            assert_refused(run(*words, "--out", out), f"in use by another multistage {name}")
        assert not out.exists()


@pytest.mark.slow
def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from multistage_diffusion.cli.holding import holding\n"
        "with holding(Path(sys.argv[1]), 'train'): print('here', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout
    process.stdout.readline()
    with pytest.raises(BadInput, match=f"process {process.pid} on"), holding(tmp_path, "train"):
        raise AssertionError("two commands at once")
    process.kill()
    process.wait()
    time.sleep(0.1)
    with holding(tmp_path, "train"):
        pass
