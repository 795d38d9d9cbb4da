"""Multi-stage networks made from a unified one."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop import warm_start
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.presets import PRESETS
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL, TINY, disturb

STAGES = Stages((0.3, 2.5))
UNIFIED = replace(MODEL, boundaries=(), network=replace(TINY, decoder_widths=(8,)))


def unified(config: ModelConfig = UNIFIED) -> NetworkDenoiser:
    return disturb(build_denoiser(config)).eval()


def styles() -> dict[str, ModelConfig]:
    """The blocks of each base, narrow."""
    found = {"tiny": UNIFIED}
    for name in ("edm-cifar10-unified", "dpm-cifar10-unified", "ldm-celebahq256-unified"):
        network = replace(
            PRESETS[name].network,
            encoder_widths=(8,),
            decoder_widths=(8,),
            blocks=1,
            channel_mult=(1, 2),
            head_channels=0,
        )
        found[name] = replace(
            UNIFIED,
            network=replace(network, attention_resolutions=(8, 4), augment_channels=0),
        )
    adm = replace(
        TINY, decoder_widths=(8,), adaptive_scale=True, residual_scale=False, output_pyramid="skip"
    )
    return {**found, "adm": replace(UNIFIED, network=adm)}


@pytest.mark.parametrize("style", styles())
def test_equal_widths_keep_the_function_exactly(style: str) -> None:
    config = styles()[style]
    first = unified(config)
    second, made = warm_start(first, config, STAGES, (8, 8, 8))
    assert made.boundaries == STAGES.boundaries
    x = torch.randn(6, 1, 8, 8)
    sigma = torch.tensor([0.1, 0.2, 1.0, 2.0, 5.0, 60.0], dtype=torch.float64)
    with torch.no_grad():
        for level in sigma.tolist():
            assert torch.equal(first(x, level), second(x, level))
        torch.testing.assert_close(first(x, sigma), second(x, sigma))


@pytest.mark.parametrize("style", styles())
@pytest.mark.parametrize("widths", [(4, 8, 12), (16, 6, 5)])
def test_any_width_begins_with_the_unified_weights(
    style: str, widths: tuple[int, int, int]
) -> None:
    config = styles()[style]
    first = unified(config)
    second, _ = warm_start(first, config, STAGES, widths)
    source = dict(first.network.decoders[0].named_parameters())
    for width, decoder in zip(widths, second.network.decoders, strict=True):
        weight = decoder.get_parameter("blocks.0.conv1.weight")
        given = source["blocks.0.conv1.weight"]
        both = min(len(weight), len(given))
        assert torch.equal(weight[:both, :both], given[:both, :both])
        if width > 8:
            assert not weight[:both, both:].any()
        encoder: Any = first.network.encoders[0]
        skip = encoder.skip_channels[-2]
        read = decoder.get_parameter("blocks.1.conv0.weight")
        before = source["blocks.1.conv0.weight"]
        assert torch.equal(read[:both, -skip:], before[:both, -skip:])
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert second(x, torch.tensor([0.1, 1.0, 10.0])).isfinite().all()


def test_a_slightly_wider_or_narrower_decoder_is_nearer_than_a_fresh_one() -> None:
    config = replace(UNIFIED, network=replace(TINY, encoder_widths=(16,), decoder_widths=(16,)))
    first = unified(config)
    x = torch.randn(8, 1, 8, 8)
    sigma = 1.0
    with torch.no_grad():
        target = first(x, sigma)
        for width in (14, 18):
            warm, made = warm_start(first, config, Stages(()), (width,))
            fresh = disturb(build_denoiser(made)).eval()
            assert float((warm(x, sigma) - target).norm()) < 0.7 * float(
                (fresh(x, sigma) - target).norm()
            )


def test_only_unified_networks_and_fitting_stages_are_taken() -> None:
    with pytest.raises(BadInput, match="unified network; this one has 3"):
        warm_start(build_denoiser(MODEL), MODEL, STAGES, (8, 8, 8))
    with pytest.raises(BadInput, match="3 stages need as many"):
        warm_start(unified(), UNIFIED, STAGES, (8, 8))


@pytest.mark.parametrize("width", [12, 4])
def test_value_and_gate_of_a_transformer_are_copied_as_two_halves(width: int) -> None:
    config = replace(UNIFIED, network=replace(UNIFIED.network, context_channels=5))
    first = unified(config)
    second, _ = warm_start(first, config, Stages(), (width,))
    name = next(n for n, _ in first.network.decoders[0].named_parameters() if ".gate.weight" in n)
    old = first.network.decoders[0].get_parameter(name)
    new = second.network.decoders[0].get_parameter(name)
    inputs = min(old.shape[1], new.shape[1])
    rows = min(len(old), len(new)) // 2
    for one, other in zip(old.chunk(2), new.chunk(2), strict=True):  # value, gate
        assert torch.equal(one[:rows, :inputs], other[:rows, :inputs])
