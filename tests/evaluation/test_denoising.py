"""Denoising loss."""

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import measure_denoising
from multistage_diffusion.model import Model, ModelConfig, build_denoiser
from multistage_diffusion.stages import Stages
from tests.conftest import disturb


@pytest.fixture
def model(model_config: ModelConfig) -> Model:
    return Model(disturb(build_denoiser(model_config)).eval(), model_config, 0)


def test_levels_average_to_stages_and_the_optimum_is_below(
    model: Model, few_digits: Images
) -> None:
    found = measure_denoising(model, few_digits, Stages(model.config.boundaries), 64)
    assert len(found.stages) == len(found.optimal) == len(found.zero) == 3
    assert len(found.levels) == 24
    sigma = [level.sigma for level in found.levels]
    assert sigma == sorted(sigma)
    for stage, loss in enumerate(found.stages):
        levels = found.levels[8 * stage : 8 * stage + 8]
        mean = sum(level.loss.value for level in levels) / 8
        assert loss.value == pytest.approx(mean, rel=1e-5)
        assert found.optimal[stage] < loss.value


def test_a_model_of_one_stage_is_reported_by_the_stages_of_another(
    model_config: ModelConfig, few_digits: Images
) -> None:
    """The images, noise and levels are the same ones, whatever the model's own stages are."""
    from multistage_diffusion.cost import unified

    config = unified(model_config)
    single = Model(build_denoiser(config).eval(), config, 0)
    stages = Stages(model_config.boundaries)
    found = measure_denoising(single, few_digits, stages, 64)
    assert len(found.stages) == 3
    torch.testing.assert_close(
        torch.tensor(found.optimal),
        torch.tensor(
            measure_denoising(
                Model(build_denoiser(model_config).eval(), model_config, 0), few_digits, stages, 64
            ).optimal
        ),
    )


def test_images_of_another_shape_and_odd_counts_are_refused(model: Model, digits: Images) -> None:
    cut = Images(digits.pixels[:][:, :, :4])
    with pytest.raises(BadInput, match="1x4x8"):
        measure_denoising(model, cut, Stages(()), 64)
    with pytest.raises(BadInput, match="multiple of 8"):
        measure_denoising(model, digits, Stages(()), 12)
