"""Models whose stages come from different models."""

from dataclasses import replace

import pytest
import torch

from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.training.ema.per_stage import combine_stages
from tests.conftest import MODEL


def models(count: int) -> list[Model]:
    """Models with different weights."""
    return [Model(build_denoiser(MODEL).eval(), MODEL, 10 + k) for k in range(count)]


@torch.no_grad()
def test_each_stage_is_that_of_its_model() -> None:
    parts = models(3)
    made = combine_stages(parts)
    x = torch.randn(3, *MODEL.shape)
    sigma = torch.tensor([0.1, 1.0, 20.0])
    for stage, part in enumerate(parts):
        expected = part.denoiser(x, sigma)[stage]
        assert torch.allclose(made.denoiser(x, sigma)[stage], expected, atol=1e-6)
    assert made.images == 10
    assert combine_stages([made, made, made]) is made


@torch.no_grad()
def test_combined_models_may_be_combined_again() -> None:
    first, second = combine_stages(models(3)), combine_stages(models(3))
    mixed = combine_stages([first, second, first])
    x, sigma = torch.randn(1, *MODEL.shape), torch.tensor([1.0])
    assert torch.allclose(mixed.denoiser(x, sigma), second.denoiser(x, sigma), atol=1e-6)


def test_models_that_do_not_fit_are_refused() -> None:
    (model,) = models(1)
    with pytest.raises(BadInput, match="2 models for 3 stages"):
        combine_stages([model, model])
    other = replace(model, config=replace(MODEL, sigma_data=0.4))
    with pytest.raises(BadInput, match="differ"):
        combine_stages([model, other, model])
