"""Latent models from end to end, and that pixels are the identity case."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.config import from_json, replace_settings, to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents.prepared import as_model_sees, cached_latents, for_training
from multistage_diffusion.model import Model, ModelConfig, load_model
from multistage_diffusion.presets import PRESETS, choose_stages, configure_run
from multistage_diffusion.run import Run
from multistage_diffusion.sampling import SampleOptions, generate
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import train
from multistage_diffusion.training.config import RunConfig
from tests.conftest import MODEL, TINY, TRAINING

READING = ReadOptions()
STAGES = Stages(MODEL.boundaries)


def preset(preconditioning: str = "edm", flip: bool = True) -> object:
    return replace_settings(
        replace(PRESETS["digits"], network=TINY, training=TRAINING),
        conditional=False,
        preconditioning=preconditioning,
        flip=flip,
    )


def configured(images: Images) -> RunConfig:
    return configure_run(preset(), images, STAGES, "colours")  # type: ignore[arg-type]


def latents_of(colours: Images, name: str, deviation: float = 0.5, how: str = "channels") -> Images:
    cached = cached_latents(colours, name, "colours", READING, mirrored=True)
    return for_training(cached, deviation, how)


@pytest.mark.slow
def test_an_identity_autoencoder_gives_the_pixel_model(colours: Images, tmp_path: Path) -> None:
    values = latents_of(colours, "identity", how="raw")
    pixels, latent = configured(colours), configured(values)
    assert latent.model.sigma_data == pixels.model.sigma_data
    records = [
        list(train(config, images, tmp_path / name))
        for name, config, images in (("pixels", pixels, colours), ("latents", latent, values))
    ]
    assert [r.loss for r in records[0]] == [r.loss for r in records[1]]
    assert [r.probe_loss for r in records[0]] == [r.probe_loss for r in records[1]]
    models = [load_model(tmp_path / name / "model.safetensors") for name in ("pixels", "latents")]
    for one, other in zip(*(model.denoiser.parameters() for model in models), strict=True):
        assert torch.equal(one, other)
    drawn = [generate(model, SampleOptions(steps=3), range(4)) for model in models]
    assert torch.equal(*drawn)


def test_the_configuration_of_a_pixel_model_does_not_mention_latents(colours: Images) -> None:
    assert "latents" not in to_json(configured(colours).model)
    latent = configured(latents_of(colours, "pca-f2c4")).model
    assert from_json(ModelConfig, json.loads(json.dumps(to_json(latent)))) == latent


@pytest.mark.slow
def test_a_latent_model_draws_images(colours: Images, tmp_path: Path) -> None:
    values = latents_of(colours, "pca-f2c4")
    config = configured(values)
    assert config.model.shape == (4, 4, 4)
    assert config.model.sigma_data == 0.5
    config = replace(
        config, training=replace_settings(config.training, grid_images=16, held_out=0.2)
    )
    list(train(config, values, tmp_path / "run"))
    model = load_model(Run(tmp_path / "run").model)
    assert model.config.image_shape == (3, 8, 8)
    drawn = generate(model, SampleOptions(steps=2), range(3))
    assert drawn.shape == (3, 3, 8, 8)
    assert drawn.dtype == torch.uint8
    assert Run(tmp_path / "run").grid(24, "averaged").exists()


def test_the_closed_form_draws_images_of_the_data_set(colours: Images) -> None:
    """The optimal denoiser of latents gives latents of the data, which decode to its images."""
    from multistage_diffusion.optimal import OptimalDenoiser
    from multistage_diffusion.sampling import SOLVERS

    values = latents_of(colours, "pca-f2c12")
    assert values.latents
    config = configured(values).model
    grid = torch.tensor([5.0, 1.0, 0.2, 0.05, 0.0], dtype=torch.float64)
    start = 5 * torch.randn(4, 12, 4, 4)
    found = SOLVERS["euler"](OptimalDenoiser(values.pixels), start, grid, noise=torch.zeros)
    images = config.space.decode(found).int()
    distance = (images[:, None] - colours.pixels[:][None].int()).abs().amax((2, 3, 4))
    assert (distance.amin(1) <= 1).all()


@pytest.mark.parametrize(("how", "unit"), [("channels", True), ("raw", False)])
def test_decoding_undoes_the_normalisation(colours: Images, how: str, unit: bool) -> None:
    values = latents_of(colours, "pca-f2c12", 0.5, how)
    assert values.latents
    deviation = float(torch.as_tensor(values.pixels[:]).double().std())
    if unit:
        assert deviation == pytest.approx(0.5, rel=0.05)  # mirrored copies count too
    else:
        assert values.latents.shift == (0.0,) * 12
    assert values.standard_deviation == values.latents.deviation
    assert values.latents.deviation == pytest.approx(deviation, rel=0.05)
    space = configured(values).model.space
    assert torch.equal(space.decode(torch.as_tensor(values.pixels[:])), colours.pixels[:])


def test_mirrored_copies_are_drawn_for_flips(colours: Images) -> None:
    from multistage_diffusion.training.batches.batch import draw
    from multistage_diffusion.training.batches.levels import Levels

    values = latents_of(colours, "pca-f2c12")
    config = configured(values)
    draws = draw(config, values, Levels.of(config), 0)
    assert draws.mirrored.any()
    assert not draws.mirrored.all()
    device = torch.device("cpu")
    samples = draws.read(torch.arange(8), values, False, device)
    batch = draws.place(samples, device, torch.contiguous_format)
    images = config.model.space.decode(batch.y)
    expected = colours.pixels[draws.chosen]
    assert isinstance(expected, torch.Tensor)
    expected[draws.mirrored] = expected[draws.mirrored].flip(3)
    assert torch.equal(images, expected)


def test_boundaries_follow_the_standard_deviation(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    file.write_text(
        json.dumps({"boundaries": [1.0, 4.0], "data": {"fingerprint": "", "deviation": 1.0}})
    )
    edm = preset()
    assert choose_stages(edm, file, 0.5).boundaries == (0.5, 2.0)  # type: ignore[arg-type]
    assert choose_stages(edm, file).boundaries == (1.0, 4.0)  # type: ignore[arg-type]
    file.write_text(json.dumps({"boundaries": [1.0, 4.0]}))
    assert choose_stages(edm, file, 0.5).boundaries == (1.0, 4.0)  # type: ignore[arg-type]


def test_what_latents_cannot_do_is_refused(colours: Images) -> None:
    plain = for_training(cached_latents(colours, "pca-f2c4", "c", READING), 0.5, "channels")
    with pytest.raises(BadInput, match="no mirrored copies"):
        configured(plain)
    unknown = replace(plain, latents=None)
    with pytest.raises(BadInput, match="unknown autoencoder"):
        configured(unknown)
    augmented = replace_settings(preset(flip=False), augment=0.1, augment_channels=9)
    with pytest.raises(BadInput, match="latents"):
        configure_run(augmented, plain, STAGES, "c")  # type: ignore[arg-type]
    other = configured(latents_of(colours, "pca-f2c3")).model.latents
    with pytest.raises(BadInput, match="another autoencoder"):
        as_model_sees(plain, other, "c", READING)


def test_a_model_sees_images_as_in_training(colours: Images) -> None:
    values = latents_of(colours, "pca-f2c4")
    seen = as_model_sees(colours, values.latents, "colours", READING)
    torch.testing.assert_close(seen.pixels[:], values.pixels[:])
    assert as_model_sees(colours, None, "colours", READING) is colours


def test_a_missing_autoencoder_is_one_line(
    colours: Images, kl_folder: Path, tmp_path: Path
) -> None:
    from multistage_diffusion.latents import load_autoencoder
    from multistage_diffusion.model import build_denoiser

    config = configured(latents_of(colours, str(kl_folder))).model
    load_autoencoder.cache_clear()
    kl_folder.rename(tmp_path / "moved")
    model = Model(build_denoiser(config).eval(), config, 0)
    with pytest.raises(BadInput, match="There is no autoencoder"):
        generate(model, SampleOptions(steps=1), range(1))
