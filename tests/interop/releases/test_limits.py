"""Pickles of few bytes that describe very much."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from multistage_diffusion.cli import main
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases.pickles import read_pickle
from multistage_diffusion.interop.releases.reader import read_release
from tests.cli.conftest import assert_refused
from tests.interop.releases.test_pickles import persistent, persistent_module


def stretched(elements: int) -> torch.Tensor:
    """One number that counts as many."""
    return torch.ones(1).as_strided((elements,), (0,))


def archive(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def old_archive(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("write", [pickle.dumps, archive, old_archive])
def test_tensors_with_more_elements_than_bytes_are_refused(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(write({"model": OrderedDict(weight=stretched(1 << 50))}))
    with pytest.raises(BadInput, match=r"file\.pth is refused.*1,125,899,906,842,624 elements"):
        read_pickle(path)


@pytest.mark.parametrize("write", [pickle.dumps, archive, old_archive])
def test_views_of_larger_tensors_are_read(tmp_path: Path, write: Any) -> None:
    (tmp_path / "file.pth").write_bytes(write(torch.arange(12.0).view(3, 4).T[1:3]))
    assert read_pickle(tmp_path / "file.pth").tolist() == [[1, 5, 9], [2, 6, 10]]


def laughs(depth: int) -> list[Any]:
    """Lists that hold the same list ten times."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value] * 10
    return value


def nested(depth: int) -> bytes:
    """The pickle of lists in lists, which cannot be made by pickling them."""
    return b"\x80\x02" + b"]" * (depth + 1) + b"a" * depth + b"."


def held_by_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(laughs(30)), pickle.dumps(held_by_itself()), nested(1000), nested(200_000)],
    ids=["laughs", "cycle", "deep", "deeper"],
)
def test_containers_without_end_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(BadInput, match="nested too deeply or too often"):
        read_pickle(tmp_path / "file.pkl")


def test_a_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    module = torch.nn.ModuleDict()
    module._modules["again"] = module
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ema": module}))
    with pytest.raises(BadInput, match="nested too deeply or too often"):
        read_pickle(tmp_path / "net.pkl")


def test_a_pickle_that_numbers_objects_it_does_not_have_is_refused(tmp_path: Path) -> None:
    """The reader would make room for 2^32 of them."""
    (tmp_path / "file.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    with pytest.raises(BadInput, match="more objects than a checkpoint has"):
        read_pickle(tmp_path / "file.pkl")


def rewritten(content: bytes, how: Any) -> bytes:
    """An archive whose records are as a function makes them."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(file, "w") as made:
        for entry in given.infolist():
            how(made, entry, given.read(entry))
    return file.getvalue()


def test_a_record_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    def cut(made: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
        made.writestr(entry, content[:8] if "/data/" in entry.filename else content)

    path = tmp_path / "file.pth"
    path.write_bytes(rewritten(archive({"model": {"a": torch.ones(1000)}}), cut))
    with pytest.raises(BadInput, match="fewer bytes than the 4,000 to be read"):
        read_pickle(path)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    def squeeze(made: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
        made.writestr(entry.filename, content, compress_type=zipfile.ZIP_DEFLATED)

    path = tmp_path / "file.pth"
    path.write_bytes(rewritten(archive({"model": {"a": torch.zeros(100_000)}}), squeeze))
    with pytest.raises(BadInput, match="compressed"):
        read_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": 3}},
        {"model": {3: torch.ones(1)}},
        {"model": {"a": torch.ones(2, dtype=torch.complex64)}},
        {"model": {"a": torch.ones(1)}, "ema": {"shadow_params": [3]}},
        {"model": {"a": torch.ones(1)}, "ema": {"shadow_params": {"a": 1}}},
        {"model": {"a": torch.ones(1)}, "ema": 3},
        {"state_dict": {3: 4, "model.diffusion_model.a": [1]}},
        {"state_dict": [1, 2]},
        {"ema": {"a": 1}},
        [1, 2],
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("write", [pickle.dumps, archive])
def test_structures_of_other_types_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, write: Any
) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(write(content))
    out = tmp_path / "out.safetensors"
    code = main(["convert", str(path), "--preset", "dpm-small", "--out", str(out)])
    assert_refused((code, *capsys.readouterr()), "")
    assert not out.exists()


def test_modules_with_other_fields_have_no_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistent_module(monkeypatch)
    state = {"_parameters": [1], "_buffers": 3, "_modules": {"a": 4, 5: None}}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ema": persistent("", state)}))
    assert read_release(tmp_path / "net.pkl") == ("edm", {})
