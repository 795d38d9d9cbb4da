"""Model files and their configuration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import (
    ModelConfig,
    build_denoiser,
    load_model,
    save_model,
    with_classes_of,
)
from multistage_diffusion.run import find_model
from multistage_diffusion.schedule import DDPM
from multistage_diffusion.training.config import RunConfig, provenance
from multistage_diffusion.training.config import run_config as run_of
from tests.conftest import MODEL


@pytest.fixture
def file(tmp_path: Path, denoiser: NetworkDenoiser, run_config: RunConfig) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, denoiser.network.state_dict(), run_config.model, 123, provenance(run_config))
    return path


def test_a_model_file_is_enough_to_build_the_same_denoiser(
    file: Path, denoiser: NetworkDenoiser, run_config: RunConfig
) -> None:
    model = load_model(file)
    x = torch.randn(3, 1, 8, 8)
    sigma = torch.tensor([0.1, 1.0, 9.0])
    assert torch.equal(model.denoiser(x, sigma), denoiser(x, sigma))
    assert run_of(model) == run_config
    assert model.images == 123
    assert not model.denoiser.training


def test_the_metadata_holds_the_configuration_as_json(file: Path, run_config: RunConfig) -> None:
    with safe_open(file, "pt") as handle:
        assert from_json(RunConfig, json.loads(handle.metadata()["config"])) == run_config


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_named(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BadInput, match=r"Cannot read .*model\.safetensors"):
        load_model(file)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInput, match="not written by this program"):
        load_model(tmp_path / "other.safetensors")


def test_weights_that_do_not_fit_are_refused(
    file: Path, denoiser: NetworkDenoiser, run_config: RunConfig
) -> None:
    wider = replace(run_config.model.network, decoder_widths=(16, 8, 4))
    save_model(
        file,
        denoiser.network.state_dict(),
        replace(run_config.model, network=wider),
        0,
        provenance(run_config),
    )
    with pytest.raises(BadInput, match="do not fit"):
        load_model(file)


def test_the_final_model_is_preferred_to_checkpoints(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(BadInput, match="holds no model"):
        find_model(run)
    for images in (8, 16):
        target = run / "checkpoints" / f"{images:012d}" / "model.safetensors"
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes())
    assert find_model(run).parent.name == f"{16:012d}"
    (run / "model.safetensors").write_bytes(file.read_bytes())
    assert find_model(run) == run / "model.safetensors"
    assert find_model(file) == file
    (run / "samples.zip").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"samples\.zip is no model file, .*evaluate reads images"):
        find_model(run / "samples.zip")


def test_configurations_survive_json(run_config: RunConfig) -> None:
    assert from_json(RunConfig, json.loads(json.dumps(to_json(run_config)))) == run_config


def test_a_bad_setting_is_named(run_config: RunConfig) -> None:
    value = to_json(run_config)
    value["model"]["schedule"] = "linear"
    with pytest.raises(BadInput, match=r"model\.schedule"):
        from_json(RunConfig, value)


def test_the_settings_of_a_schedule_are_part_of_a_model(file: Path, run_config: RunConfig) -> None:
    """The network is told the steps of its own schedule: Stable Diffusion's here."""
    config = replace(
        run_config.model,
        schedule="ddpm",
        preconditioning="ddpm",
        schedule_settings=(("beta_start", 0.00085), ("beta_end", 0.012)),
    )
    ours = DDPM(0.00085, 0.012)
    denoiser = build_denoiser(config)
    step = torch.tensor([0.0, 321.0, 999.0], dtype=torch.float64)
    told = denoiser.preconditioning.c_noise(ours.from_clock(step))
    torch.testing.assert_close(told, step)
    save_model(file, denoiser.network.state_dict(), config, 0, {})
    loaded = load_model(file)
    assert loaded.config == config
    assert loaded.config.density == ours
    with pytest.raises(BadInput, match="beta_start, beta_end, steps, not beta"):
        replace(config, schedule_settings=(("beta", 1.0),))


def test_classes_have_as_many_names_and_numbers_as_there_are() -> None:
    replace(MODEL, classes=2, class_names=("cat", "dog"), class_numbers=(3, 4))
    for name, values in (("class_names", ("cat",)), ("class_numbers", (1, 2, 3))):
        message = f"{name} has {len(values)} entries, and there are 2 classes"
        with pytest.raises(BadInput, match=message):
            ModelConfig(**{**vars(MODEL), "classes": 2, name: values})


def test_labels_are_brought_to_the_classes_of_a_model() -> None:
    pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1, 0]), ("dog", "owl"), "some", class_numbers=(5, 9))
    named = replace(MODEL, classes=3, class_names=("cat", "dog", "owl"), class_numbers=(2, 5, 9))
    labels = with_classes_of(named, images).labels
    assert labels is not None
    assert labels.tolist() == [1, 2, 1]
    unnamed = replace(MODEL, classes=10)
    labels = with_classes_of(unnamed, images).labels
    assert labels is not None
    assert labels.tolist() == [5, 9, 5]
    with pytest.raises(BadInput, match="some has the class owl, which the model does not know"):
        with_classes_of(
            replace(named, classes=2, class_names=("cat", "dog"), class_numbers=()), images
        )
    assert with_classes_of(MODEL, images) is images
