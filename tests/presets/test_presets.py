"""The presets named after the paper are its networks, counted; every preset trains and samples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs, total_parameters
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.preconditioning import PRECONDITIONINGS
from multistage_diffusion.presets import (
    ABOUT_PRESETS,
    PRESETS,
    Preset,
    choose_stages,
    configure_run,
    preset_model,
)
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import train

PARAMETERS = {
    "edm-cifar10": 128_793_385,
    "edm-celeba32": 128_793_385,
    "dpm-cifar10": 237_169_337,
    "ldm-celebahq256": 493_841_449,
    "edm-cifar10-unified": 55_733_891,
    "dpm-cifar10-unified": 107_521_411,
    "ldm-celebahq256-unified": 274_056_163,
}
DECODERS = {
    "edm-cifar10": (68.28, 36.10, 4.77),
    "dpm-cifar10": (126.0, 64.0, 3.65),
    "ldm-celebahq256": (208, 116, 62),
}
GIGA_MACS = {
    "edm-cifar10": (35.75, 21.19, 7.73),
    "dpm-cifar10": (30.99, 18.59, 7.16),
    "ldm-celebahq256": (120.44, 78.21, 53.41),
    "edm-cifar10-unified": (21.19,),
    "dpm-cifar10-unified": (18.59,),
    "ldm-celebahq256-unified": (101.2,),
}


def model(preset: Preset) -> ModelConfig:
    return preset_model(preset, choose_stages(preset, None))


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_paper(name: str) -> None:
    assert total_parameters(model(PRESETS[name])) == PARAMETERS[name]


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_are_those_of_the_release(name: str) -> None:
    with torch.device("meta"):
        network = build_denoiser(model(PRESETS[name])).network
    for decoder, millions in zip(network.decoders, DECODERS[name], strict=True):
        digits = 2 if millions < 100 and millions % 1 else 0
        assert round(sum(p.numel() for p in decoder.parameters()) / 1e6, digits) == pytest.approx(
            millions, abs=0.011
        )
    if name == "dpm-cifar10":
        assert sum(p.numel() for p in network.encoders.parameters()) == 43_482_624


@pytest.mark.slow
@pytest.mark.parametrize("name", GIGA_MACS)
def test_macs_are_those_of_the_release(name: str) -> None:
    found = [cost.macs / 1e9 for cost in stage_costs(model(PRESETS[name]))]
    assert found == pytest.approx(GIGA_MACS[name], abs=0.012)


@pytest.mark.parametrize("name", ["edm-cifar10", "edm-celeba32", "dpm-cifar10", "ldm-celebahq256"])
def test_the_separate_twin_is_three_unified_networks(name: str) -> None:
    separate, unified = (
        total_parameters(model(PRESETS[f"{name}-{kind}"])) for kind in ("separate", "unified")
    )
    assert separate == 3 * unified


def test_every_preset_has_a_line_about_it() -> None:
    assert ABOUT_PRESETS.keys() == PRESETS.keys()
    for preset in PRESETS.values():
        assert len(choose_stages(preset, None)) == len(preset.network.decoder_widths)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_learns_with_its_recipe(name: str, tmp_path: Path) -> None:
    """The blocks, loss, optimiser and augmentation of the preset, narrow, on a few images."""
    preset = PRESETS[name]
    attention = tuple(
        size * 16 // max(preset.shape) for size in preset.network.attention_resolutions
    )
    network = replace(
        preset.network,
        blocks=1,
        channel_mult=preset.network.channel_mult[:2],
        attention_resolutions=attention,
    )
    network = replace(
        network,
        encoder_widths=tuple(8 for _ in network.encoder_widths),
        decoder_widths=tuple(8 for _ in network.decoder_widths),
        head_channels=min(4, network.head_channels),
    )
    training = replace_settings(
        preset.training,
        images=16,
        batch_size=8,
        record_images=8,
        checkpoint_images=8,
        precision="float32",
        warmup_images=8,
    )
    pixels = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    images = Images(pixels, torch.arange(12) % 2, ("a", "b"))
    narrow = replace(preset, network=network, training=training)
    records = list(
        train(configure_run(narrow, images, choose_stages(narrow, None), "x"), images, tmp_path)
    )
    assert [record.images for record in records] == [8, 16]
    assert all(loss is None or loss > 0 for loss in records[-1].loss)


def test_augmentation_needs_a_network_that_knows_of_it() -> None:
    images = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    small = PRESETS["small"]
    preset = replace(small, training=replace_settings(small.training, augment=0.1))
    with pytest.raises(BadInput, match="--augment-channels 9"):
        configure_run(preset, images, Stages((1.0, 2.0)), "x")


@pytest.mark.parametrize("name", PRESETS)
def test_sigma_data_is_measured_and_used_where_the_preset_leaves_it_open(name: str) -> None:
    """At sigma = sigma_data EDM's preconditioning keeps half of the noisy image; the noise-
    predicting ones keep all of it."""
    preset = PRESETS[name]
    pixels = torch.arange(4 * 3 * 8 * 8).remainder(200).to(torch.uint8).reshape(4, 3, 8, 8)
    images = Images(pixels, torch.arange(4) % 2, ("a", "b"))
    measured = (images.pixels[:].double() / 127.5 - 1).std(correction=0).item()
    config = configure_run(preset, images, choose_stages(preset, None), "x").model
    assert config.sigma_data == pytest.approx(preset.diffusion.sigma_data or measured, abs=5e-5)
    assert (preset.diffusion.sigma_data is None) != name.startswith(
        "edm-"
    )  # EDM's own recipes keep EDM's 0.5
    assert (
        configure_run(
            replace_settings(preset, sigma_data=0.3), images, choose_stages(preset, None), "x"
        ).model.sigma_data
        == 0.3
    )
    kept = PRECONDITIONINGS[config.preconditioning](config.sigma_data, config.density).c_skip(
        torch.tensor(config.sigma_data)
    )
    assert float(kept) == pytest.approx(0.5 if config.preconditioning == "edm" else 1.0)
