"""The run folder and the rule for writing."""

from pathlib import Path

import pytest

from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run, claim


def test_only_complete_checkpoints_and_snapshots_count(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.images_seen() == 0
    assert not run.begun
    for images in (30, 4, 200):
        run.checkpoint(images).mkdir(parents=True)
    (tmp_path / "checkpoints" / ".000000000300").mkdir()
    (tmp_path / "checkpoints" / "000000000400.damaged").mkdir()
    (tmp_path / "checkpoints" / "000000000500").touch()
    assert run.checkpoints() == [run.checkpoint(images) for images in (4, 30, 200)]
    assert run.images_seen() == 200
    run.snapshot(7).parent.mkdir()
    run.snapshot(7).touch()
    (tmp_path / "averages" / ".000000000009.safetensors").touch()
    assert run.snapshots() == [run.snapshot(7)]


def test_evenly_spaced_checkpoints_end_with_the_latest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for images in range(1, 13):
        run.checkpoint(images).mkdir(parents=True)
    chosen = [
        [int(path.name) for path in run.evenly_spaced_checkpoints(count)] for count in (1, 4, 12)
    ]
    assert chosen == [[12], [3, 6, 9, 12], list(range(1, 13))]
    assert len(run.evenly_spaced_checkpoints(99)) == 12


def test_checkpoints_of_interruptions_do_not_displace_others(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for images in (100, 130, 200, 290, 300, 400):
        run.checkpoint(images).mkdir(parents=True)
    chosen = run.evenly_spaced_checkpoints(4)
    assert [int(path.name) for path in chosen] == [100, 200, 300, 400]


def test_a_run_has_begun_once_it_has_a_configuration(tmp_path: Path) -> None:
    Run(tmp_path).config.write_text("{}")
    assert Run(tmp_path).begun


def test_what_is_free_may_be_claimed(tmp_path: Path) -> None:
    claim(tmp_path / "new", "is in use")
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty", "is in use", folder=True)
    with pytest.raises(BadInput, match="empty exists and is in use"):
        claim(tmp_path / "empty", "is in use")


@pytest.mark.parametrize("kind", ["file", "empty file", "folder"])
def test_what_is_in_use_may_be_claimed_by_its_owner_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "used"
    if kind == "folder":
        path.mkdir()
        (path / "something").touch()
    else:
        path.write_text("content" if kind == "file" else "")
    with pytest.raises(BadInput, match=r"used exists and is in use; choose another --out"):
        claim(path, "is in use")
    with pytest.raises(BadInput):
        claim(path, "is in use", lambda _: False)
    claim(path, "is in use", lambda found: found == path)
