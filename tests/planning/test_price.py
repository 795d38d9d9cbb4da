"""Costs against what really happens: torch's counter, memory and optimum on real tensors."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel  # fused kernels are not counted
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import activation_bytes, stage_costs, unified
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.planning.price import price
from multistage_diffusion.planning.widths import propose_widths
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL, TINY, run_on

SIGMAS = (0.1, 1.0, 10.0)
WIDE = replace(MODEL, network=replace(TINY, encoder_widths=(32,), decoder_widths=(48, 32, 16)))


@pytest.mark.parametrize("classes", [0, 5])
def test_macs_are_those_of_a_real_forward_and_backward_pass(classes: int) -> None:
    config = replace(MODEL, classes=classes)
    denoiser, labels = build_denoiser(config), torch.zeros(3, dtype=torch.long) if classes else None
    for cost, sigma in zip(stage_costs(config), SIGMAS, strict=True):
        x = torch.randn(3, *config.shape)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss = denoiser.loss(
                x,
                torch.full((3,), sigma, dtype=torch.float64),
                torch.randn_like(x),
                Conditions(labels),
            ).sum()
            assert counter.get_total_flops() == 2 * 3 * cost.macs
            loss.backward()
        assert counter.get_total_flops() == 2 * 3 * cost.training_macs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [0, 2])
def test_activation_bytes_are_those_of_real_tensors(dtype: torch.dtype, stage: int) -> None:
    network = build_denoiser(MODEL).network

    def saved(batch: int) -> int:
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            alive.append(tensor)
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        alive: list[torch.Tensor] = []
        counts = [batch * (k == stage) for k in range(3)]
        enabled = dtype != torch.float32
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", dtype, enabled=enabled),
        ):
            network(torch.randn(batch, 1, 8, 8), torch.zeros(batch), counts)
        return sum(held.values())

    assert activation_bytes(MODEL, stage, dtype) == pytest.approx(
        saved(2) - saved(1), rel=0.01
    )  # kernels may pad


def cost(config: ModelConfig, share: tuple[float, ...]) -> float:
    mean = sum(s * c.macs for s, c in zip(share, stage_costs(config), strict=True))
    return mean / stage_costs(unified(config))[0].macs


@pytest.mark.slow
@pytest.mark.parametrize("share", [(0.96, 0.035, 0.005), (0.25, 0.25, 0.5)])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.7])
def test_proposed_widths_are_the_widest_in_proportion_that_keep_the_budget(
    share: tuple[float, ...], ratio: float
) -> None:
    widths = propose_widths(WIDE, share, ratio)
    assert all(width % 8 == 0 for width in widths)
    assert cost(replace(WIDE, network=replace(WIDE.network, decoder_widths=widths)), share) <= ratio
    wider = [
        tuple(max(8, 8 * round(s * w / 8)) for w in (48, 32, 16))
        for s in torch.linspace(0.1, 4, 800).tolist()
    ]
    larger = next(candidate for candidate in wider if sum(candidate) > sum(widths))
    assert cost(replace(WIDE, network=replace(WIDE.network, decoder_widths=larger)), share) > ratio


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(BadInput, match="Even decoders of width 8 cost"):
        propose_widths(WIDE, (0.3, 0.3, 0.4), 0.01)
    with pytest.raises(BadInput, match="one shared encoder"):
        propose_widths(
            replace(WIDE, network=replace(WIDE.network, encoder_widths=(8, 8, 8))),
            (0.3, 0.3, 0.4),
            1.0,
        )


def test_the_unified_twin_costs_what_it_costs(few_digits: Images) -> None:
    config = run_on(few_digits)
    twin = replace(config, model=unified(config.model))
    found = price(twin, steps=18, measure=False)
    assert found.share == [1.0]
    assert found.evaluations["heun"] == [35]
    assert {tuple(found.evaluations[name]) for name in found.kinds} == {(35,), (18,)}
    assert found.training_macs == found.costs[0].training_macs
    assert found.sample_macs("ddim") == 18 * found.costs[0].macs


def test_a_price_is_the_mean_over_stages(few_digits: Images) -> None:
    config = run_on(few_digits)
    found = price(config, steps=18, measure=True)
    costs = stage_costs(config.model)
    assert sum(found.share) == pytest.approx(1)
    assert found.training_macs == pytest.approx(
        sum(s * c.training_macs for s, c in zip(found.share, costs, strict=True))
    )
    assert sum(found.evaluations["heun"]) == 35
    assert found.sample_macs("ddim") == sum(
        n * c.macs for n, c in zip(found.evaluations["ddim"], costs, strict=True)
    )
    assert found.speed is not None
    assert min(*found.speed.training, *found.speed.sampling, found.speed.step) > 0
    assert found.training_seconds(8) > found.training_seconds(80) > 0
    assert len(found.costs) == len(Stages(config.model.boundaries))
