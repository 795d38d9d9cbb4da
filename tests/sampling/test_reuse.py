"""Encoder reuse."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, preset_model
from multistage_diffusion.sampling.path import Path, stale_errors
from multistage_diffusion.sampling.reuse import ReusingDenoiser
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL

LOW, HIGH = MODEL.boundaries
LEVELS = (20.0, 10.0, 5.0, HIGH / 1.1, LOW * 1.1, LOW / 2, LOW / 3)


@torch.no_grad()
def test_without_reused_levels_it_is_the_network(denoiser: NetworkDenoiser) -> None:
    x = torch.randn(2, *MODEL.shape)
    reusing = ReusingDenoiser(denoiser, ())
    for sigma in LEVELS:
        torch.testing.assert_close(reusing(x, sigma), denoiser(x, sigma))


@torch.no_grad()
def test_the_encoder_is_not_evaluated_at_reused_levels_but_where_a_stage_begins(
    denoiser: NetworkDenoiser,
) -> None:
    evaluated: list[float] = []
    encoder = denoiser.network.encoders[0]
    now = [0.0]
    encoder.register_forward_hook(lambda *_: evaluated.append(now[0]))
    reusing = ReusingDenoiser(denoiser, LEVELS[1:])
    for now[0] in LEVELS:
        reusing(torch.randn(2, *MODEL.shape), now[0])
    assert evaluated == [20.0, HIGH / 1.1, LOW / 2]


@torch.no_grad()
def test_at_the_same_state_and_level_reuse_changes_nothing(denoiser: NetworkDenoiser) -> None:
    x = torch.randn(2, *MODEL.shape)
    reusing = ReusingDenoiser(denoiser, (10.0, 4.0))
    torch.testing.assert_close(reusing(x, 10.0), reusing(x, 10.0))
    assert not torch.allclose(reusing(x, 4.0), denoiser(x, 4.0))


@torch.no_grad()
def test_what_reuse_loses_is_measured_at_each_pair_of_levels(denoiser: NetworkDenoiser) -> None:
    states = [sigma * torch.randn(2, *MODEL.shape) for sigma in LEVELS]
    path = Path((*LEVELS, 0.0), np.eye(2 * len(LEVELS) + 1), np.ones(8), tuple(states))
    errors = stale_errors(denoiser, path)
    assert np.diag(errors).max() < 1e-6
    stages = denoiser.stages.index(torch.tensor(LEVELS)).tolist()
    for k, i in itertools.product(range(len(LEVELS)), repeat=2):
        assert np.isfinite(errors[k, i]) == (k <= i and stages[k] == stages[i])
    reusing = ReusingDenoiser(denoiser, LEVELS[1:])
    reusing(states[0], LEVELS[0])
    lost = reusing(states[2], LEVELS[2]) - denoiser(states[2], LEVELS[2])
    assert errors[0, 2] == pytest.approx(float(lost.square().mean().sqrt()), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["small", "edm-cifar10"])
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
    reusing = ReusingDenoiser(conditional, (10.0,))
    x, labels = torch.randn(2, *MODEL.shape), Conditions(torch.tensor([0, 2]))
    torch.testing.assert_close(reusing(x, 10.0, labels), conditional(x, 10.0, labels))
