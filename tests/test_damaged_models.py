"""Model files that someone edited or cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, build_denoiser, load_model, save_model
from multistage_diffusion.tensorfile import FORMAT, read_tensors

Header = dict[str, Any]


@pytest.fixture
def file(tmp_path: Path, model_config: ModelConfig) -> Path:
    path = tmp_path / "model.safetensors"
    weights = build_denoiser(model_config).network.state_dict()
    save_model(path, weights, model_config, 7, {"data": {}})
    return path


def with_header(path: Path, edit: Callable[[Header], None]) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def with_metadata(path: Path, key: str, value: str | None) -> None:
    def edit(header: Header) -> None:
        if value is None:
            del header["__metadata__"][key]
        else:
            header["__metadata__"][key] = value

    with_header(path, edit)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", None, "images: Field required"),
        ("images", '"many"', "images: Input should be a valid integer"),
        ("images", "-1", "images must be zero or positive"),
        ("images", "NaN", "images"),
        ("images", "{", "metadata images is not valid JSON"),
        ("config", "[" * 100_000, "metadata config is not valid JSON"),
        ("config", "[]", "config"),
        ("config", "{}", "config.model"),
        ("format", None, "was not written by this program"),
    ],
)
def test_metadata_that_is_wrong_is_named(
    file: Path, key: str, value: str | None, message: str
) -> None:
    with_metadata(file, key, value)
    with pytest.raises(BadInput, match=f"{file}.*{message}"):
        load_model(file)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("decoder_widths", [60_000, 60_000, 60_000]), ("blocks", 64), ("decoder_widths", [4, 8, 12])],
)
def test_a_configuration_for_other_weights_is_refused_before_they_are_made(
    file: Path, setting: str, value: object
) -> None:
    def edit(header: Header) -> None:
        config = json.loads(header["__metadata__"]["config"])
        config["model"]["network"][setting] = value
        header["__metadata__"]["config"] = json.dumps(config)

    with_header(file, edit)
    with pytest.raises(BadInput, match="do not fit its configuration"):
        load_model(file)


@pytest.mark.parametrize(
    "edit", [{"shape": [1 << 50]}, {"data_offsets": [0, 1 << 50]}, {"dtype": "X"}, {"shape": "x"}]
)
def test_a_header_that_promises_more_than_there_is_is_refused(file: Path, edit: Header) -> None:
    def change(header: Header) -> None:
        header[next(name for name in header if name != "__metadata__")] |= edit

    with_header(file, change)
    with pytest.raises(BadInput, match=f"Cannot read {file}"):
        read_tensors(file)


@pytest.mark.parametrize("length", [1 << 63, 1 << 40, 0])
def test_a_header_of_another_length_is_refused(file: Path, length: int) -> None:
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(BadInput, match=f"Cannot read {file}"):
        read_tensors(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(
    file: Path, model_config: ModelConfig, value: float
) -> None:
    weights = build_denoiser(model_config).network.state_dict()
    name = sorted(weights)[0]
    weights[name].view(-1)[-1] = value
    save_model(file, weights, model_config, 7, {})
    with pytest.raises(BadInput, match=rf"holds NaN or infinity in {name}: its training diverged"):
        load_model(file)


def test_complex_weights_are_refused(file: Path, model_config: ModelConfig) -> None:
    tensors, metadata = read_tensors(file)
    changed = {name: tensor.to(torch.complex64) for name, tensor in tensors.items()}
    text = {key: json.dumps(value) for key, value in metadata.items()}
    save_file(changed, file, {"format": FORMAT, **text})
    with pytest.raises(BadInput, match="do not fit its configuration"):
        load_model(file)
