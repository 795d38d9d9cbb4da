"""Rules for the boundaries between stages."""

from dataclasses import replace

import pytest
import torch

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import Model
from multistage_diffusion.sampling import (
    SampleOptions,
    evaluations_per_stage,
    generate,
    karras_grid,
)
from multistage_diffusion.sampling.boundaries import BLEND, BlendedDenoiser, blend_weight, snapped
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL

STAGES = Stages(MODEL.boundaries)
LOW, HIGH = MODEL.boundaries


@pytest.mark.parametrize("steps", range(1, 30))
def test_a_snapped_grid_falls_and_has_the_boundaries_if_it_has_levels_for_them(steps: int) -> None:
    grid = karras_grid(steps, 0.002, 80)
    found = snapped(grid, STAGES)
    assert (found.diff() < 0).all()
    assert torch.equal(found[[0, -1]], grid[[0, -1]])
    assert len(found) == len(grid)
    assert int((found != grid).sum()) <= 2
    if steps > 3:
        assert set(MODEL.boundaries) <= set(found.tolist())


def test_boundaries_outside_of_the_grid_move_nothing() -> None:
    grid = karras_grid(8, 3.0, 80)[:-1]
    assert torch.equal(snapped(grid, STAGES), grid)


def test_the_weight_goes_from_one_decoder_to_the_other_in_its_band() -> None:
    sigma = LOW * torch.tensor([1 / BLEND - 1e-6, 1.0, BLEND**0.5, BLEND + 1e-6]).double()
    expected = torch.tensor([0.0, 0.5, 0.75, 0.0], dtype=torch.float64)
    torch.testing.assert_close(blend_weight(sigma, STAGES), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_blending_is_the_network_outside_and_continuous_inside(denoiser: NetworkDenoiser) -> None:
    blended = BlendedDenoiser(denoiser)
    x = torch.randn(1, *MODEL.shape)
    for sigma in (0.1, LOW / BLEND / 1.01, LOW * BLEND * 1.01, HIGH * BLEND * 1.01, 20.0):
        torch.testing.assert_close(blended(x, sigma), denoiser(x, sigma))
    middle = (denoiser(x, LOW * 0.999999) + denoiser(x, LOW)) / 2
    torch.testing.assert_close(blended(x, LOW), middle, atol=1e-4, rtol=1e-3)
    levels = LOW * torch.linspace(0.7, 1.4, 400).double()
    path = torch.cat([blended(x, float(sigma)) for sigma in levels])
    jumps = path.diff(dim=0).flatten(1).norm(dim=1)
    jump = float((denoiser(x, LOW * 0.999999) - denoiser(x, LOW)).norm())
    assert float(jumps.max()) < 0.1 * jump


def test_each_rule_draws_images_and_counts_what_it_evaluates(denoiser: NetworkDenoiser) -> None:
    model = Model(denoiser, MODEL, 0)
    options = SampleOptions(solver="dpmpp-2m", steps=7)
    drawn = {
        rule: generate(model, replace(options, boundary=rule), range(2)).int()
        for rule in ("keep", "restart", "snap", "blend")
    }
    assert len({tuple(images.flatten().tolist()) for images in drawn.values()}) == 4
    assert sum(evaluations_per_stage(MODEL, options)) == 7
    grid = karras_grid(7, 0.002, 80)[:-1]
    twice = int((blend_weight(grid, STAGES) > 0).sum())
    blend = replace(options, boundary="blend")
    assert sum(evaluations_per_stage(MODEL, blend)) == 7 + twice
