"""The U-Net: routing, baselines as settings, names of parameters, refused settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.attention import Attention
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.decoder import decoder_attention
from multistage_diffusion.networks.embedding import Embedding
from multistage_diffusion.networks.layers import group_norm
from tests.conftest import TINY, disturb

SHAPE = (3, 8, 8)
UNIFIED = replace(TINY, decoder_widths=(8,))
SEPARATE = replace(TINY, encoder_widths=(8, 6, 4), decoder_widths=(8, 6, 4))
DECODER_SHARED = replace(TINY, encoder_widths=(8, 8, 8), decoder_widths=(6,))
KINDS = {"multistage": TINY, "separate": SEPARATE, "decoder-shared": DECODER_SHARED}


def network(config: NetworkConfig, classes: int = 0) -> StagedUNet:
    return disturb(StagedUNet(SHAPE, classes, config)).eval()


def inputs(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *SHAPE), torch.randn(count)


def one_hot(stage: int, count: int) -> list[int]:
    return [count if k == stage else 0 for k in range(3)]


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_routed_forward_equals_each_decoder_alone(config: NetworkConfig) -> None:
    net = network(config)
    (x, c_noise) = inputs(6)
    routed = net(x, c_noise, [1, 3, 2])
    for stage, part in enumerate((slice(0, 1), slice(1, 4), slice(4, 6))):
        alone = net(x[part], c_noise[part], one_hot(stage, len(x[part])))
        torch.testing.assert_close(routed[part], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, SEPARATE], ids=["multistage", "separate"])
def test_other_decoders_get_no_gradient(config: NetworkConfig) -> None:
    net = network(config)
    (x, c_noise) = inputs(2)
    net(x, c_noise, [0, 2, 0]).square().sum().backward()
    touched = [any(p.grad is not None for p in decoder.parameters()) for decoder in net.decoders]
    assert touched == [False, True, False]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.decoders[1].parameters())
    assert all(
        p.grad is not None for p in net.encoders[-1 if len(net.encoders) == 1 else 1].parameters()
    )


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_one_stage_equals_unified_bit_by_bit(stage: int) -> None:
    """Given the weights of the encoder and one decoder, the unified network equals the routed."""
    net = network(replace(TINY, decoder_widths=(8, 8, 8)))
    unified = network(UNIFIED)
    unified.encoders.load_state_dict(net.encoders.state_dict())
    unified.decoders[0].load_state_dict(net.decoders[stage].state_dict())
    x, c_noise = inputs(4)
    assert torch.equal(net(x, c_noise, one_hot(stage, 4)), unified(x, c_noise, [4]))


def test_the_same_seed_gives_one_stage_and_unified_the_same_weights() -> None:
    torch.manual_seed(5)
    first = StagedUNet(SHAPE, 0, UNIFIED)
    torch.manual_seed(5)
    second = StagedUNet(SHAPE, 0, replace(SEPARATE, encoder_widths=(8,), decoder_widths=(8,)))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_encoder_serves_all_stages() -> None:
    net = network(TINY)
    (x, c_noise) = inputs(3)
    net(x, c_noise, [1, 1, 1]).sum().backward()
    together = [p.grad.clone() for p in net.encoders.parameters() if p.grad is not None]
    net.zero_grad()
    for stage in range(3):
        net(x[stage : stage + 1], c_noise[stage : stage + 1], one_hot(stage, 1)).sum().backward()
    separate = [p.grad for p in net.encoders.parameters() if p.grad is not None]
    for a, b in zip(together, separate, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 5, 7, 13, 33])
def test_any_width_works(width: int) -> None:
    config = replace(TINY, encoder_widths=(width,), decoder_widths=(width, 8, width + 1))
    x, c_noise = inputs(3)
    assert network(config)(x, c_noise, [1, 1, 1]).isfinite().all()


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(128, 32), (64, 16), (16, 4), (7, 1), (36, 9), (40, 10), (33, 3), (1, 1)],
)
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert group_norm(channels, NetworkConfig()).num_groups == groups


def test_parameters_keep_their_names_and_sizes() -> None:
    """Model files and checkpoints depend on these: a change here needs a new format."""
    tiny = StagedUNet((1, 8, 8), 10, replace(TINY, encoder_widths=(4,), decoder_widths=(6, 5)))
    golden = json.loads((Path(__file__).parent / "golden" / "parameters.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in tiny.state_dict().items()} == golden


def test_labels_change_the_output() -> None:
    net = network(TINY, classes=4)
    (x, c_noise) = inputs(2)
    first, second = (
        net(x, c_noise, [2, 0, 0], Conditions(torch.full((2,), label))) for label in (0, 3)
    )
    assert not torch.allclose(first, second)


def test_dropout_acts_in_training_only() -> None:
    net = network(TINY)
    (x, c_noise) = inputs(2)
    assert torch.equal(net(x, c_noise, [1, 1, 0]), net(x, c_noise, [1, 1, 0]))
    net.train()
    assert not torch.equal(net(x, c_noise, [1, 1, 0]), net(x, c_noise, [1, 1, 0]))


def test_attention_is_its_formula() -> None:
    layer = Attention(8, replace(TINY, groups=2))
    x = torch.randn(2, 8, 3, 5)
    q, k, v = layer.qkv(layer.norm(x)).reshape(2, 8, 3, 15).unbind(2)
    weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / 8**0.5, dim=2)
    expected = layer.proj(torch.einsum("bqk,bck->bcq", weights, v).reshape(2, 8, 3, 5))
    torch.testing.assert_close(layer(x), expected)


def test_attention_does_not_know_positions() -> None:
    layer = Attention(8, replace(TINY, groups=2))
    x = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(layer(x.flip(2, 3)), layer(x).flip(2, 3))


def test_embedding_has_unit_circle_features() -> None:
    embedding = Embedding(8, 0, TINY)
    angles = torch.outer(torch.tensor([0.3]), embedding.frequencies)
    assert float(embedding.frequencies[0]) == 1
    assert float(embedding.frequencies[-1]) == pytest.approx(1e-4)
    torch.testing.assert_close(angles.sin() ** 2 + angles.cos() ** 2, torch.ones_like(angles))


@pytest.mark.parametrize("size", [(8, 12), (16, 8), (2, 2)])
def test_images_need_not_be_square(size: tuple[int, int]) -> None:
    net = StagedUNet((1, *size), 0, TINY)
    assert net(torch.randn(3, 1, *size), torch.randn(3), [1, 1, 1]).shape == (3, 1, *size)


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(BadInput, match="divisible by 2"):
        StagedUNet((1, 8, 7), 0, TINY)


def test_channels_of_a_single_pixel_are_not_normalised_alone() -> None:
    alone = replace(TINY, group_channels=1, groups=64)
    with pytest.raises(BadInput, match="2 levels images are a single pixel, and each of its 16"):
        StagedUNet((1, 2, 2), 0, alone)
    x = torch.randn(1, 1, 4, 4)  # training at 2x2, the lowest level
    assert StagedUNet((1, 4, 4), 0, alone).train()(x, torch.zeros(1), [1, 0, 0]).shape == x.shape


def test_a_shared_decoder_learns_from_every_stage_and_each_encoder_from_its_own() -> None:
    net = network(DECODER_SHARED)
    x, c_noise = inputs(2)
    net(x, c_noise, [1, 0, 1]).square().sum().backward()
    touched = [any(p.grad is not None and p.grad.any() for p in e.parameters()) for e in net.parts]
    assert touched == [True, False, True, True]


def test_encoders_must_fit_decoders() -> None:
    with pytest.raises(BadInput, match="2 encoders do not fit 3 decoders"):
        StagedUNet(SHAPE, 0, replace(TINY, encoder_widths=(8, 8)))
    with pytest.raises(BadInput, match="share a decoder need one width"):
        StagedUNet(SHAPE, 0, replace(DECODER_SHARED, encoder_widths=(8, 6, 4)))


@pytest.mark.parametrize(
    "bad",
    [
        {"decoder_widths": (8, 0, 8)},
        {"blocks": 0},
        {"groups": 0},
        {"channel_mult": (0, 1)},
        {"dropout": 1},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=next(iter(bad))):
        replace(TINY, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((8, 4), [(8, 4), (2,), ()]), ((4, 2), [(4, 2), (), ()])],
)
def test_the_releases_bookkeeping_of_attention_counts_across_decoders(
    asked: tuple[int, ...], expected: list[tuple[int, ...]]
) -> None:
    """The authors' loop: a factor that is halved at every up-sampling and never reset."""
    widths = (4, 4, 4)
    config = replace(
        TINY,
        channel_mult=(1, 2, 3),
        decoder_widths=widths,
        attention_resolutions=asked,
        decoder_attention="first-decoder",
    )
    factor = 4
    for stage in range(3):
        found = []
        for level in (2, 1, 0):
            if factor in [8 // size for size in asked]:
                found.append(8 >> level)
            factor = factor // 2 if level else factor
        assert sorted(decoder_attention((3, 8, 8), config, stage)) == sorted(found)
        assert found == sorted(expected[stage])
