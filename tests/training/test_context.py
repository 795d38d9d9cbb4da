"""Cross-attention to a given context, from training to samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.data.context import read_context
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser, load_model
from multistage_diffusion.presets import PRESETS, configure_run
from multistage_diffusion.sampling import SampleOptions, generate
from multistage_diffusion.sampling.guidance import Guidance, GuidedDenoiser
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import train
from multistage_diffusion.training.batches.batch import draw
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.config import RunConfig
from tests.conftest import MODEL, TINY, TRAINING, disturb

NETWORK = replace(TINY, context_channels=6, label_dropout=0.5)
STAGES = Stages(MODEL.boundaries)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.npy"
    np.save(path, np.random.default_rng(0).standard_normal((40, 3, 6)).astype(np.float16))
    return path


@pytest.fixture
def images(colours: Images, texts: Path) -> Images:
    return replace(colours, context=read_context(texts))


def config_of(images: Images) -> RunConfig:
    preset = replace_settings(
        replace(PRESETS["digits"], network=NETWORK, training=replace_settings(TRAINING, images=16)),
        conditional=False,
    )
    return configure_run(preset, images, STAGES, "colours", None, "fingerprint")


@pytest.fixture
def denoiser(images: Images) -> NetworkDenoiser:
    return disturb(build_denoiser(config_of(images).model))


def test_each_image_has_its_own_context_unless_hidden(images: Images) -> None:
    config = config_of(images)
    draws = draw(config, images, Levels.of(config), 16)
    device, rows = torch.device("cpu"), torch.arange(8)
    samples = draws.read(rows, images, False, device)
    context = draws.place(samples, device, torch.contiguous_format).conditions.context
    assert images.context is not None
    assert draws.unlabelled is not None
    assert context is not None
    assert 0 < int(draws.unlabelled.sum()) < 8
    assert bool((context[draws.unlabelled] == 0).all())
    shown = ~draws.unlabelled
    assert torch.equal(context[shown], images.context[draws.chosen[shown]].float())


def test_the_attention_to_it_is_trained(images: Images, texts: Path, tmp_path: Path) -> None:
    config = config_of(images)
    list(train(config, images, tmp_path / "run"))
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.run["data"]["context"] == "fingerprint"
    torch.manual_seed(0)
    begun = build_denoiser(config.model)
    changed = [
        not torch.equal(old, new)
        for (name, old), new in zip(
            begun.named_parameters(), model.denoiser.parameters(), strict=True
        )
        if "cross_attention" in name
    ]
    assert changed
    assert all(changed)
    options = SampleOptions(steps=2, context=texts)
    drawn = generate(model, options, [1, 41, 2])
    assert drawn.shape == (3, 3, 8, 8)


@torch.no_grad()
def test_guidance_moves_away_from_no_context(denoiser: NetworkDenoiser, images: Images) -> None:
    assert images.context is not None
    denoiser.eval()
    x, sigma = torch.randn(4, 3, 8, 8), torch.tensor([0.1, 1.0, 5.0, 20.0])
    conditions = Conditions(context=images.context[:4].float())
    given = denoiser(x, sigma, conditions)
    without = denoiser(x, sigma, Conditions(context=torch.zeros(4, 3, 6)))
    assert not torch.allclose(given, without)
    guided = GuidedDenoiser(denoiser, conditions, Guidance((3.0,)), STAGES)(x, sigma)
    torch.testing.assert_close(guided, without + 3 * (given - without), atol=1e-5, rtol=1e-4)


def test_contexts_that_do_not_fit(
    colours: Images, images: Images, texts: Path, tmp_path: Path, denoiser: NetworkDenoiser
) -> None:
    assert images.context is not None
    with pytest.raises(BadInput, match="contexts of 30 images, and 40"):
        config_of(replace(images, context=images.context[:30]))
    with pytest.raises(BadInput, match="--context-channels 5"):
        config_of(replace(images, context=images.context[:, :, :5]))
    np.save(tmp_path / "flat.npy", np.zeros((4, 6), np.float32))
    with pytest.raises(BadInput, match=r"floating point \[N, tokens"):
        read_context(tmp_path / "flat.npy")
    with pytest.raises(BadInput, match="Cannot read the context"):
        read_context(tmp_path / "none.npy")
    plain = replace(config_of(images).model, network=TINY)
    model = Model(build_denoiser(plain).eval(), plain, 0)
    with pytest.raises(BadInput, match="the model takes none"):
        generate(model, SampleOptions(steps=1, context=texts), [0])
