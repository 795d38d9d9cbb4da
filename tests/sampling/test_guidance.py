"""Classifier-free guidance."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel  # fused kernels are not counted
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import reused_macs
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig, build_denoiser
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage, generate
from multistage_diffusion.sampling.guidance import (
    AutoguidedDenoiser,
    Guidance,
    GuidedDenoiser,
    weakened,
)
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL, TINY, disturb

CONFIG = replace(MODEL, classes=3, network=replace(TINY, label_dropout=0.1))
LABELS = torch.tensor([0, 1, 2, 0])
STAGES = Stages(CONFIG.boundaries)
SIGMA = torch.tensor([0.1, 1.0, 20.0, 2.0], dtype=torch.float64)


@pytest.fixture
def conditional() -> NetworkDenoiser:
    return disturb(build_denoiser(CONFIG)).eval()


@torch.no_grad()
def answers(denoiser: NetworkDenoiser, x: Tensor) -> tuple[Tensor, Tensor]:
    """With the classes and without."""
    return denoiser(x, SIGMA, Conditions(LABELS)), denoiser(x, SIGMA, Conditions(None))


@torch.no_grad()
def test_each_sample_has_the_weight_of_its_stage_and_level(conditional: NetworkDenoiser) -> None:
    x = torch.randn(4, *CONFIG.shape)
    given, without = answers(conditional, x)
    guided = GuidedDenoiser(
        conditional, Conditions(LABELS), Guidance((1.0, 2.0, 3.0), (0.0, 10.0)), STAGES
    )
    weight = torch.tensor([1.0, 2.0, 1.0, 2.0])[:, None, None, None]  # 20 is out of the range
    expected = without + weight * (given - without)
    torch.testing.assert_close(guided(x, SIGMA), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_weight_of_one_is_the_model_and_of_zero_the_model_without_class(
    conditional: NetworkDenoiser,
) -> None:
    x = torch.randn(4, *CONFIG.shape)
    given, without = answers(conditional, x)
    one, zero = (
        GuidedDenoiser(conditional, Conditions(LABELS), Guidance((w,)), STAGES)(x, SIGMA)
        for w in (1.0, 0.0)
    )
    torch.testing.assert_close(one, given)
    torch.testing.assert_close(zero, without, atol=1e-5, rtol=1e-4)


def test_guided_evaluations_count_twice() -> None:
    plain = SampleOptions(solver="euler", steps=10)
    calls = evaluations_per_stage(CONFIG, plain)
    low, high = CONFIG.boundaries
    middle = replace(plain, guidance=(2.0,), guidance_range=(low, math.nextafter(high, 0)))
    assert evaluations_per_stage(CONFIG, middle) == [calls[0], 2 * calls[1], calls[2]]
    only_last = replace(plain, guidance=(1.0, 1.0, 2.0))
    assert evaluations_per_stage(CONFIG, only_last) == [calls[0], calls[1], 2 * calls[2]]


@pytest.mark.parametrize(
    ("config", "guidance", "message"),
    [
        (MODEL, (2.0,), "needs a conditional model"),
        (replace(CONFIG, network=TINY), (2.0,), "trained with --label-dropout"),
        (CONFIG, (1.0, 2.0), "1 weight or 3"),
    ],
)
def test_what_cannot_be_guided_is_refused(
    config: ModelConfig, guidance: tuple[float, ...], message: str
) -> None:
    model = Model(build_denoiser(config).eval(), config, 0)
    with pytest.raises(BadInput, match=message):
        generate(model, SampleOptions(steps=2, guidance=guidance), range(2))


@pytest.mark.parametrize("solver", ["heun", "dpmpp-23"])
def test_guided_images_depend_on_seed_and_index_only(
    conditional: NetworkDenoiser, solver: str
) -> None:
    model = Model(conditional, CONFIG, 0)
    options = SampleOptions(solver=solver, steps=3, guidance=(1.5,))
    whole = generate(model, options, range(4)).int()
    assert int((generate(model, options, [2]).int() - whole[2:3]).abs().max()) <= 1
    plain = generate(model, replace(options, guidance=()), range(4)).int()
    assert int((whole - plain).abs().max()) > 1


@pytest.fixture
def pair() -> tuple[NetworkDenoiser, NetworkDenoiser]:
    """A network, and another one's decoders behind its encoder."""
    strong, other = (disturb(build_denoiser(MODEL)).eval() for _ in range(2))
    return strong, weakened(strong, other)


@torch.no_grad()
@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_autoguidance_moves_away_from_the_weaker_decoder(
    pair: tuple[NetworkDenoiser, NetworkDenoiser], sigma: float
) -> None:
    strong, weak = pair
    x = torch.randn(3, *MODEL.shape)
    good, bad = strong(x, sigma), weak(x, sigma)
    assert not torch.allclose(good, bad)
    for w in (0.0, 1.0, 2.5):
        guided = AutoguidedDenoiser(strong, weak, Guidance((w,)))(x, sigma)
        torch.testing.assert_close(guided, bad + w * (good - bad), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_autoguidance_costs_one_more_decoder(
    pair: tuple[NetworkDenoiser, NetworkDenoiser],
) -> None:
    strong, weak = pair
    x = torch.randn(1, *MODEL.shape)

    def macs(denoiser: Denoiser, sigma: float) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            denoiser(x, sigma)
        return counter.get_total_flops() // 2

    guided = AutoguidedDenoiser(strong, weak, Guidance((1.0, 2.0, 2.0)))
    assert macs(guided, 0.1) == macs(strong, 0.1)  # a weight of 1
    reused = reused_macs(MODEL)[1]  # a decoder, with the stem
    assert macs(guided, 1.0) == macs(strong, 1.0) + reused


def test_what_autoguidance_needs(pair: tuple[NetworkDenoiser, NetworkDenoiser]) -> None:
    strong, weak = pair
    with pytest.raises(BadInput, match="one noise level"):
        AutoguidedDenoiser(strong, weak, Guidance((2.0,)))(
            torch.zeros(2, *MODEL.shape), torch.tensor([1.0, 2.0])
        )
    wide = replace(MODEL, network=replace(TINY, encoder_widths=(16,)))
    with pytest.raises(BadInput, match="another encoder"):
        weakened(strong, build_denoiser(wide))
