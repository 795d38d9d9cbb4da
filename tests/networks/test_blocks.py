"""The blocks of the three bases against other implementations of their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import upfirdn
from torch import Tensor, nn

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.attention import (
    MOST_POSITIONS,
    Attention,
    SpatialTransformer,
    TokenAttention,
    attend,
)
from multistage_diffusion.networks.blocks import (
    PyramidConv,
    Resampling,
    ResamplingConv,
    ResidualBlock,
)
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.embedding import FOURIER_SCALE, NO_LABEL, Embedding
from multistage_diffusion.networks.layers import Dropout, GroupNorm, dropout_from, generators
from tests.conftest import TINY, disturb

FIR = (1, 3, 3, 1)
SHAPE = (3, 8, 8)


def by_scipy(x: Tensor, up: int) -> np.ndarray:
    """scipy's separable 1 3 3 1 filter; with ``up`` 2, zeros between rows and columns first."""
    array = x.numpy()
    for axis in (2, 3):
        array = upfirdn(np.array(FIR) / 8 * up, array, up, 1, axis=axis)
    return array.copy()


def test_halving_with_a_filter_is_scipys() -> None:
    x = torch.randn(2, 3, 8, 8)
    expected = by_scipy(x, 1)[:, :, 2:-1:2, 2:-1:2]  # one zero before, one after
    torch.testing.assert_close(Resampling("down", FIR)(x), torch.from_numpy(expected).float())


def test_doubling_with_a_filter_is_scipys() -> None:
    x = torch.randn(2, 3, 8, 8)
    expected = by_scipy(x, 2)[:, :, 1:17, 1:17]
    torch.testing.assert_close(Resampling("up", FIR)(x), torch.from_numpy(expected).float())


@pytest.mark.parametrize("how", ["down", "up"])
def test_a_box_is_the_mean_and_the_nearest_neighbour(how: str) -> None:
    x = torch.randn(2, 3, 8, 8)
    boxed = Resampling(how, (1, 1))  # type: ignore[arg-type]
    by_filter = boxed.down(x, 0) if how == "down" else boxed.up(x, 0)
    torch.testing.assert_close(boxed(x), by_filter)


@pytest.mark.parametrize("taps", [FIR, (1, 1)])
def test_a_pyramid_convolution_is_filter_and_convolution_away_from_the_edge(
    taps: tuple[int, ...],
) -> None:
    x = torch.randn(1, 3, 16, 16)
    for how in ("down", "up"):
        layer = disturb(PyramidConv(3, 5, how, taps))
        found = layer(x)
        weight, bias = layer.conv.weight, layer.conv.bias
        expected = F.conv2d(Resampling(how, taps)(x), weight, bias, padding=1)
        assert found.shape == expected.shape
        if how == "up":
            torch.testing.assert_close(
                found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], rtol=1e-4, atol=1e-5
            )
        else:  # the filter at full size, then a convolution that keeps every second place
            full = F.conv2d(
                x, layer.resampling._weight(x), padding=layer.resampling.pad + 1, groups=3
            )
            torch.testing.assert_close(found, F.conv2d(full, weight, bias, stride=2))


def test_resampling_convolutions_have_the_right_size() -> None:
    x = torch.randn(2, 4, 8, 8)
    emb = torch.zeros(2, 16)
    assert ResamplingConv(4, "down")(x, emb).shape == (2, 4, 4, 4)
    layer = ResamplingConv(4, "up")
    torch.testing.assert_close(
        layer(x, emb), layer.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    )


def test_adaptive_scale_is_its_formula() -> None:
    """Dhariwal & Nichol 2021: (1 + scale) norm(h) + shift; no scaling of sums."""
    config = replace(TINY, adaptive_scale=True, residual_scale=False, dropout=0.0)
    block = disturb(ResidualBlock(4, 4, 8, config))
    x = torch.randn(2, 4, 6, 6)
    emb = torch.randn(2, 8)
    scale, shift = block.affine(emb)[:, :, None, None].chunk(2, 1)
    h = block.norm1(block.conv0(F.silu(block.norm0(x)))) * (1 + scale) + shift
    torch.testing.assert_close(block(x, emb), x + block.conv1(F.silu(h)))


@pytest.mark.parametrize(
    ("channels", "head_channels", "heads"), [(16, 4, 4), (16, 0, 1), (12, 5, 2), (8, 16, 1)]
)
def test_heads_attend_separately(channels: int, head_channels: int, heads: int) -> None:
    layer = disturb(Attention(channels, replace(TINY, head_channels=head_channels)))
    assert layer.heads == heads
    x = torch.randn(2, channels, 3, 3)
    qkv = layer.qkv(layer.norm(x)).view(2, heads, channels // heads, 3, 9)
    outs = []
    for head in range(heads):
        q, k, v = qkv[:, head].unbind(2)
        weights = torch.softmax(
            torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(channels // heads), 2
        )
        outs.append(torch.einsum("bqk,bck->bcq", weights, v))
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(outs, 1).view(2, channels, 3, 3)))


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(BadInput, match="16 channels cannot be divided into 3 attention heads"):
        Attention(16, replace(TINY, heads=3))


def test_heads_of_more_channels_than_any_level_has_are_refused() -> None:
    widest = max(*TINY.encoder_widths, *TINY.decoder_widths) * max(TINY.channel_mult)
    replace(TINY, head_channels=widest)
    with pytest.raises(BadInput, match=f"head_channels is {widest + 1}.*give at most {widest}"):
        replace(TINY, head_channels=widest + 1)


def test_attention_to_a_context_is_torchs() -> None:
    layer = disturb(TokenAttention(8, 6, 2))
    oracle = nn.MultiheadAttention(8, 2, bias=True, kdim=6, vdim=6, batch_first=True)
    state = {
        "q_proj_weight": layer.query.weight,
        "k_proj_weight": layer.key.weight,
        "v_proj_weight": layer.value.weight,
    }
    state |= {
        "in_proj_bias": torch.zeros(24),
        "out_proj.weight": layer.out.weight,
        "out_proj.bias": layer.out.bias,
    }
    oracle.load_state_dict(state)
    x = torch.randn(3, 5, 8)
    context = torch.randn(3, 7, 6)
    torch.testing.assert_close(layer(x, context), oracle(x, context, context)[0])


def test_a_network_with_a_context_routes_it_with_its_sample() -> None:
    config = replace(TINY, context_channels=5, head_channels=4, dropout=0.0)
    network = disturb(StagedUNet(SHAPE, 0, config)).eval()
    assert isinstance(network.encoders[0].blocks[-1].attention, SpatialTransformer)  # type: ignore[union-attr,index]
    x = torch.randn(4, *SHAPE)
    c_noise = torch.randn(4)
    context = torch.randn(4, 6, 5)
    together = network(x, c_noise, [1, 2, 1], Conditions(context=context))
    for index, stage in enumerate((0, 1, 1, 2)):
        counts = [int(k == stage) for k in range(3)]
        part = slice(index, index + 1)
        alone = network(x[part], c_noise[part], counts, Conditions(context=context[part]))
        torch.testing.assert_close(together[part], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        together, network(x, c_noise, [1, 2, 1], Conditions(context=context + 1))
    )
    assert network(x, c_noise, [1, 2, 1]).isfinite().all()


def test_embeddings_are_their_formulas() -> None:
    c_noise = torch.tensor([0.3, 500.0])
    angles = torch.outer(c_noise, torch.exp(-math.log(10000) * torch.arange(4) / 4))
    sinusoidal = Embedding(8, 0, replace(TINY, embedding="sinusoidal"))._sinusoids(c_noise)
    torch.testing.assert_close(sinusoidal, torch.cat([angles.cos(), angles.sin()], 1))
    layer = Embedding(64, 0, replace(TINY, embedding="fourier", embedding_mult=2))
    assert layer.channels == 128
    assert "frequencies" in layer.state_dict()
    assert float(layer.frequencies.std()) == pytest.approx(FOURIER_SCALE, rel=0.3)
    turns = torch.outer(c_noise / 500, layer.frequencies) * 2 * math.pi
    fourier = torch.cat([turns.sin(), turns.cos()], 1)
    torch.testing.assert_close(layer._sinusoids(c_noise / 500), fourier, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("place", ["before", "after"])
def test_no_label_is_a_label_of_zeros(place: str) -> None:
    config = replace(TINY, label_embedding=place)  # type: ignore[arg-type]
    layer = disturb(Embedding(8, 3, config))
    c_noise = torch.randn(2)
    none = layer(c_noise, torch.tensor([NO_LABEL, NO_LABEL]))
    torch.testing.assert_close(none, layer(c_noise))
    assert not torch.allclose(none, layer(c_noise, torch.tensor([0, 2])))


@pytest.mark.parametrize("pyramid", ["none", "skip", "residual"])
@pytest.mark.parametrize("where", ["input_pyramid", "output_pyramid"])
@pytest.mark.parametrize("taps", [FIR, (1, 1)])
def test_every_parameter_of_every_pyramid_is_used(
    pyramid: str, where: str, taps: tuple[int, ...]
) -> None:
    config = replace(TINY, resample_filter=taps, channel_mult=(1, 2, 2), **{where: pyramid})  # type: ignore[arg-type]
    network = disturb(StagedUNet(SHAPE, 0, config))
    network(torch.randn(3, *SHAPE), torch.randn(3), [1, 1, 1]).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_settings_of_blocks_are_checked() -> None:
    with pytest.raises(BadInput, match="resample_filter"):
        NetworkConfig(resample_filter=(1, 2, 1))
    with pytest.raises(BadInput, match="label_dropout"):
        NetworkConfig(label_dropout=1.0)


def test_dropout_has_its_share_of_zeros_and_keeps_the_mean() -> None:
    layer = Dropout(0.13)
    x = torch.ones(64, 3, 33, 31)
    for layout in (x, x.to(memory_format=torch.channels_last)):
        dropped = layer(layout)
        assert dropped.stride() == layout.stride()
        zeros = float((dropped == 0).float().mean())
        assert zeros == pytest.approx(0.13, abs=0.003)
        assert float(dropped.mean()) == pytest.approx(1, abs=0.005)
        assert dropped.unique().numel() == 2
    assert layer.eval()(x) is x


def test_dropout_is_independent_of_neighbours() -> None:
    """Pairs of entries are zero as often as chance predicts, if they share a random number too."""
    dropped = Dropout(0.5)(torch.ones(1, 16, 64, 64).to(memory_format=torch.channels_last))
    zero = (dropped == 0).double().permute(0, 2, 3, 1).reshape(-1, 16)
    pairs = (zero.T @ zero) / len(zero)
    assert float((pairs - torch.eye(16) * 0.25 - 0.25).abs().max()) < 0.03


def test_a_norm_learns_from_constant_images_in_any_memory_format() -> None:
    x = torch.randn(4, 16, 8, 8)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        norm = GroupNorm(4, 16)
        norm(x.to(memory_format=layout)).square().sum().backward()
        gradients.append(norm.weight.grad)
    torch.testing.assert_close(*gradients)


@torch.no_grad()
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_a_norm_with_rounded_weights_keeps_its_statistics_in_float32(mean: float) -> None:
    """Statistics in bf16 would be wrong by far for images with a large mean."""
    norm = GroupNorm(4, 16)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    x = (mean + torch.randn(4, 16, 8, 8)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm.rounded(x)
    assert found.dtype == torch.bfloat16
    weights = norm.weight.double(), norm.bias.double()
    exact = F.group_norm(x.double(), 4, *weights, norm.eps)
    assert float((found - exact).abs().max()) < 2**-6 * float(exact.abs().max())


def test_dropout_of_a_sample_is_its_own() -> None:
    """The same in any batch, and the source of a sample gives each layer other numbers."""
    layer = Dropout(0.5)
    seeds = torch.tensor([5, -7, 11])
    x = torch.ones(3, 5, 4, 4).to(memory_format=torch.channels_last)

    def dropped(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        with dropout_from(generators(seeds[rows])):
            return layer(x[rows]), layer(x[rows])

    first, second = dropped([0, 1, 2])
    turned, again = dropped([2, 0])
    assert torch.equal(turned, first[[2, 0]])
    assert torch.equal(again, second[[2, 0]])
    with dropout_from(generators(seeds)):
        assert torch.equal(layer(x.contiguous()), first)
    for one, other in ((first[0], first[1]), (first[1], first[2]), (first[0], second[0])):
        assert 0.2 < float((one != other).float().mean()) < 0.8


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 16), (torch.bfloat16, 32)])
def test_attention_keeps_no_matrix_of_all_pairs(
    layout: torch.memory_format, dtype: torch.dtype, least: int
) -> None:
    """What is kept for the backward pass grows with the positions, not with their square."""
    attention = Attention(8, replace(TINY, heads=4)).to(dtype)
    kept = []
    for size in (least, 2 * least):
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor, held: dict[int, int] = held) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.randn(1, 8, size, size, dtype=dtype).to(memory_format=layout).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attention(x)
        kept.append(sum(held.values()))
    assert kept[1] / kept[0] < 5
    assert kept[1] < dtype.itemsize * (2 * least) ** 4


def grads(values: list[Tensor]) -> list[Tensor]:
    return [value.grad for value in values if value.grad is not None]


@pytest.mark.parametrize("positions", [16, MOST_POSITIONS, MOST_POSITIONS + 1])
def test_attention_in_bf16_rounds_no_more_than_torchs(positions: int) -> None:
    """Short and long sequences are computed in different ways."""
    exact = [torch.randn(2, 2, positions, 8).bfloat16().double() for _ in range(3)]
    errors = []
    for function in (attend, F.scaled_dot_product_attention):
        rounded = [value.bfloat16().requires_grad_() for value in exact]
        inputs = [value.clone().requires_grad_() for value in exact]
        (q, k, v), (q64, k64, v64) = rounded, inputs
        out, right = function(q, k, v), F.scaled_dot_product_attention(q64, k64, v64)
        out.sum().backward()
        right.sum().backward()
        pairs = [(out, right), *zip(grads(rounded), grads(inputs), strict=True)]
        errors.append(torch.stack([(one - other).abs().max() for one, other in pairs]))
    assert (errors[0] <= 2 * errors[1] + 1e-2).all()


def test_attention_is_its_formula() -> None:
    attention = disturb(Attention(8, replace(TINY, heads=2)))
    x = torch.randn(3, 8, 4, 4)
    qkv = attention.qkv(attention.norm(x)).view(3, 2, 4, 3, 16)
    q, k, v = qkv.unbind(3)
    weights = torch.einsum("bhcq,bhck->bhqk", q, k).div(2).softmax(-1)
    out = torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(3, 8, 4, 4)
    torch.testing.assert_close(attention(x), attention.proj(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 64])  # 4 and 16 in a group
def test_a_norm_of_bf16_images_keeps_their_memory_format(channels: int) -> None:
    """Narrow groups are normalised in another one, and values and gradients are the same."""
    x = torch.randn(3, channels, 8, 8).bfloat16()
    weighted = torch.randn(3, channels, 8, 8).bfloat16()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        norm = GroupNorm(4, channels)
        inputs = x.clone(memory_format=layout).requires_grad_()
        normalised = norm(inputs)
        (gradient,) = torch.autograd.grad(normalised, inputs, weighted.clone(memory_format=layout))
        assert normalised.is_contiguous(memory_format=layout)
        assert gradient.is_contiguous(memory_format=layout)
        found.append((normalised, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
