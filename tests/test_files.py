import os
from pathlib import Path

import pytest

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_atomically, write_json


def test_a_failed_write_leaves_the_old_content_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "value.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "deep" / "value.json") == {"a": [1, 2.5, None]}
    (tmp_path / "bad.json").write_text("{")
    for name in ("bad.json", "missing.json"):
        with pytest.raises(BadInput, match=name):
            read_json(tmp_path / name)
