from pathlib import Path

import torch
from safetensors import safe_open

from multistage_diffusion.tensorfile import read_tensors, save_tensors

TENSORS = {
    "b": torch.randn(3, 5),
    "a": torch.arange(7, dtype=torch.int8),
    "c": torch.tensor(2.5, dtype=torch.float64),
}
METADATA = {name: {"ä": index} for index, name in enumerate("zyxwvutsrq")}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """In whatever order tensors and metadata are given."""
    turned = dict(reversed(TENSORS.items())), dict(reversed(METADATA.items()))
    for index in range(10):
        tensors, metadata = (TENSORS, METADATA) if index % 2 else turned
        save_tensors(tmp_path / str(index), tensors, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_file_holds_what_was_saved(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", TENSORS, METADATA)
    tensors, metadata = read_tensors(tmp_path / "file")
    assert metadata == METADATA
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
    with safe_open(tmp_path / "file", "pt") as file:  # by the library that others use
        assert set(file.keys()) == set(TENSORS)
