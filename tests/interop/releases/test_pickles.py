"""Pickles that contain or ask for code: none of it is run."""

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases.pickles import Record, read_pickle


class Attack:
    """Writes a file when it is unpickled in the usual way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "was_run"


def attacks(mark: Path) -> dict[str, Attack]:
    import os
    import subprocess

    code = f"open({str(mark)!r}, 'w').close()"
    return {
        "posix.system": Attack(os.system, f"touch {mark}"),
        "builtins.exec": Attack(exec, code),
        "builtins.eval": Attack(eval, code),
        "subprocess.Popen": Attack(subprocess.Popen, ["touch", str(mark)]),
        "builtins.getattr": Attack(getattr, os, "system"),
    }


@pytest.mark.parametrize(
    "name",
    ["posix.system", "builtins.exec", "builtins.eval", "subprocess.Popen", "builtins.getattr"],
)
@pytest.mark.parametrize("place", ["alone", "among weights", "torch", "old torch"])
def test_code_is_refused_by_name_and_not_run(
    tmp_path: Path, mark: Path, name: str, place: str
) -> None:
    file = tmp_path / "checkpoint"
    if name == "builtins.getattr":
        attack: Any = Attack(getattr, 3, "real")
    else:
        attack = attacks(mark)[name]
    content = attack if place == "alone" else {"ema": torch.zeros(2), "extra": [attack]}
    if "torch" in place:
        torch.save(content, file, _use_new_zipfile_serialization=place == "torch")
    else:
        file.write_bytes(pickle.dumps(content))
    asked = (
        name.split(".")[-1] if "torch" in place else name
    )  # torch may name the module as Python 2 did
    with pytest.raises(BadInput, match=rf"asks for \S*{asked}, which is neither"):
        read_pickle(file)
    assert not mark.exists()


def test_source_code_in_a_module_stays_text(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EDM's way: a function of torch_utils gets the source code and the state of a module."""
    persistent_module(monkeypatch)
    state = {
        "_parameters": {"weight": torch.nn.Parameter(torch.arange(3.0))},
        "_buffers": {"scale": torch.ones(1)},
        "_modules": {},
    }
    module = persistent(f"open({str(mark)!r}, 'w').close()", state)
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ema": module}))
    found = read_pickle(tmp_path / "net.pkl")["ema"]
    assert isinstance(found, Record)
    assert {name: tensor.tolist() for name, tensor in found.tensors().items()} == {
        "weight": [0, 1, 2],
        "scale": [1],
    }
    assert not mark.exists()


def persistent_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for EDM's package, without which such a pickle cannot be written."""
    package = types.ModuleType("torch_utils")
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("only written, never called")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def persistent(source: str, state: dict[str, Any]) -> Attack:
    meta = {
        "type": "class",
        "version": 6,
        "module_src": source,
        "class_name": "Network",
        "state": state,
    }
    return Attack(sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, meta)


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_containers_and_numbers_are_read(tmp_path: Path, protocol: int) -> None:
    content: dict[str, Any] = OrderedDict(
        tensor=torch.arange(6, dtype=torch.float16).view(2, 3).T,
        parameter=torch.nn.Parameter(torch.ones(2)),
        plain=[1, 2.5, "text", None, (True, b"bytes"), {"a": {1, 2}}],
        number=np.float64(0.5),
    )
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(tmp_path / "file.pkl")
    assert torch.equal(found["tensor"], content["tensor"])
    assert torch.equal(found["parameter"], content["parameter"].detach())
    assert found["plain"] == content["plain"]
    assert found["number"] == 0.5


@pytest.mark.parametrize("new", [True, False])
def test_files_of_torch_are_read(tmp_path: Path, new: bool) -> None:
    state: dict[str, Any] = {"model": OrderedDict(weight=torch.randn(2, 3)), "step": 7}
    torch.save(state, tmp_path / "file.pth", _use_new_zipfile_serialization=new)
    found = read_pickle(tmp_path / "file.pth")
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])
    assert found["step"] == 7


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", b"PK\x03\x04 no archive", pickle.dumps(torch.ones(9))[:-30]]
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pkl").write_bytes(content)
    with pytest.raises(BadInput, match=r"bad\.pkl"):
        read_pickle(tmp_path / "bad.pkl")
    with pytest.raises(BadInput, match="No such file"):
        read_pickle(tmp_path / "none.pkl")
