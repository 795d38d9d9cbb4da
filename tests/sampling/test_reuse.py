"""Encoder reuse."""

from dataclasses import replace

import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.sampling.reuse import ReusingDenoiser
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL

LOW, HIGH = MODEL.boundaries
LEVELS = (20.0, 10.0, 5.0, HIGH / 1.1, LOW * 1.1, LOW / 2, LOW / 3)


@torch.no_grad()
def test_a_period_of_one_is_the_network(denoiser: NetworkDenoiser) -> None:
    x = torch.randn(2, *MODEL.shape)
    reusing = ReusingDenoiser(denoiser, 1)
    for sigma in LEVELS:
        torch.testing.assert_close(reusing(x, sigma), denoiser(x, sigma))


@torch.no_grad()
def test_the_encoder_is_evaluated_in_key_calls_and_where_a_stage_begins(
    denoiser: NetworkDenoiser,
) -> None:
    evaluated: list[float] = []
    encoder = denoiser.network.encoders[0]
    now = [0.0]
    encoder.register_forward_hook(lambda *_: evaluated.append(now[0]))
    reusing = ReusingDenoiser(denoiser, 2)
    for now[0] in LEVELS:
        reusing(torch.randn(2, *MODEL.shape), now[0])
    assert evaluated == [20.0, 5.0, HIGH / 1.1, LOW / 2]


@torch.no_grad()
def test_at_the_same_state_and_level_reuse_changes_nothing(denoiser: NetworkDenoiser) -> None:
    x = torch.randn(2, *MODEL.shape)
    reusing = ReusingDenoiser(denoiser, 5)
    torch.testing.assert_close(reusing(x, 10.0), reusing(x, 10.0))
    assert not torch.allclose(reusing(x, 4.0), denoiser(x, 4.0))


@torch.no_grad()
@pytest.mark.parametrize("name", ["dpm-cifar10", "ldm-256", "edm-cifar10"])
def test_what_reuse_saves_is_the_encoder(name: str) -> None:
    preset = PRESETS[name]
    config = preset_model(preset, Stages(preset.diffusion.boundaries))
    whole = [cost.macs for cost in stage_costs(config)]
    reused = reused_macs(config)
    saved = [a - b for a, b in zip(whole, reused, strict=True)]
    assert len(set(saved)) == 1  # the encoder is shared
    assert 0 < saved[0] < min(whole)


@torch.no_grad()
def test_labels_of_a_call_are_those_it_is_given() -> None:
    conditional = build_denoiser(replace(MODEL, classes=3)).eval()
    reusing = ReusingDenoiser(conditional, 3)
    x, labels = torch.randn(2, *MODEL.shape), Conditions(torch.tensor([0, 2]))
    torch.testing.assert_close(reusing(x, 10.0, labels), conditional(x, 10.0, labels))
