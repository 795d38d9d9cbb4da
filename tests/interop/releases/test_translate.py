"""The names of stock checkpoints, and the errors for one that does not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop import release_model, translate
from multistage_diffusion.interop.releases import dpm, edm, ldm
from multistage_diffusion.interop.releases.rules import Rule
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.presets import PRESETS
from multistage_diffusion.schedule import DDPM, VP
from tests.conftest import MODEL


def narrow(name: str) -> ModelConfig:
    """The unified network of a base with few channels, for images of 16x16."""
    network = replace(
        PRESETS[name].network,
        encoder_widths=(32,),
        decoder_widths=(32,),
        blocks=1,
        channel_mult=(1, 2),
    )
    network = replace(
        network, attention_resolutions=(8,), head_channels=network.head_channels and 16
    )
    return replace(MODEL, shape=(3, 16, 16), boundaries=(), network=network)


def stock(config: ModelConfig, rules: list[Rule]) -> dict[str, Tensor]:
    """A state dict with a release's names, for rules that only rename."""
    state = build_denoiser(config).network.state_dict()
    return {rule.theirs[0]: state[rule.ours] for rule in rules}


def test_stock_edm_is_read() -> None:
    config = narrow("edm-cifar10-unified")
    network = build_denoiser(config).network
    rules = list(
        edm.rules(network, config.shape, frozenset({"model.dec.16x16_block0.conv0.weight"}))
    )
    state = stock(config, rules)
    expected = {
        "model.enc.16x16_conv.weight",
        "model.dec.8x8_in0.qkv.weight",
        "model.dec.16x16_up.conv0.bias",
        "model.map_augment.weight",
    }
    assert (
        expected
        | {
            "model.dec.16x16_aux_norm.weight",
            "model.dec.16x16_aux_conv.bias",
            "model.map_layer1.bias",
        }
        <= state.keys()
    )
    made = translate("edm", config, state)
    assert all(torch.equal(made[rule.ours], state[rule.theirs[0]]) for rule in rules)


def test_stock_adm_is_read() -> None:
    config = narrow("edm-cifar10-unified")
    style = replace(
        config.network,
        adaptive_scale=True,
        residual_scale=False,
        decoder_attention="each",
        project_resampled=False,
    )
    config = replace(
        config, network=replace(style, embedding="sinusoidal", label_embedding="after"), classes=5
    )
    network = build_denoiser(config).network
    names = frozenset({"model.dec.16x16_block0.conv0.weight", "model.out_conv.weight"})
    state = stock(config, list(edm.rules(network, config.shape, names)))
    assert {
        "model.out_norm.weight",
        "model.out_conv.bias",
        "model.dec.8x8_block0.qkv.weight",
        "model.map_label.weight",
    } <= state.keys()
    assert "model.dec.16x16_up.skip.weight" not in state
    translate("edm", config, state)


def test_stock_latent_diffusion_is_read() -> None:
    """Compvis's names; queries, keys and values come by head, then kind, then channel."""
    config = narrow("ldm-celebahq256-unified")
    network = build_denoiser(config).network
    rules = list(
        ldm.rules(network, config.shape, frozenset({"output_blocks.0.0.in_layers.0.weight"}))
    )
    wanted = network.state_dict()
    state = {}
    for rule in rules:
        tensor = wanted[rule.ours]
        if ".qkv." in rule.ours:
            heads = tensor.shape[0] // 3 // 16
            tensor = (
                tensor.view(heads, 16, 3, *tensor.shape[1:2])
                .transpose(1, 2)
                .reshape(tensor.shape[0], *tensor.shape[1:2])
            )
            tensor = tensor[..., None] if ".weight" in rule.ours else tensor
        elif ".attention.proj.weight" in rule.ours:
            tensor = tensor[..., 0]
        state[rule.theirs[0]] = tensor
    assert {
        "input_blocks.2.0.op.weight",
        "middle_block.1.qkv.weight",
        "output_blocks.1.2.conv.weight",
        "out.2.bias",
    } <= state.keys()
    made = translate("ldm", config, state)
    for name, tensor in wanted.items():
        assert torch.equal(made[name], tensor), name


def separate(rule: Rule, tensor: Tensor) -> dict[str, Tensor]:
    """Our tensor as score_sde has it: dense layers ``[inputs, outputs]``, one for each of q, k, v.

    Our rows of queries, keys and values come by channel, then kind.
    """
    parts = tensor.view(-1, len(rule.theirs), *tensor.shape[1:]).unbind(1)
    dense = rule.theirs[0].endswith(".W")
    return {
        name: part[:, :, 0, 0].T if dense else part
        for name, part in zip(rule.theirs, parts, strict=True)
    }


def test_stock_score_sde_is_read() -> None:
    """One list of modules in the order of their use, attention apart from its block."""
    config = narrow("dpm-cifar10-unified")
    network = build_denoiser(config).network
    rules = list(dpm.rules(network, config.shape, frozenset({"all_modules.0.weight"})))
    wanted = network.state_dict()
    state: dict[str, Tensor] = {}
    for rule in rules:
        state |= separate(rule, wanted[rule.ours])
    assert {
        "all_modules.1.weight",
        "all_modules.4.Conv_2.weight",
        "all_modules.5.Conv2d_0.weight",
        "all_modules.7.NIN_3.W",
        "all_modules.9.NIN_0.b",
        "all_modules.12.Dense_0.weight",
        "all_modules.13.NIN_2.W",
        "all_modules.14.Conv_2.bias",
        "all_modules.17.weight",
        "all_modules.18.bias",
    } <= state.keys()
    made = translate("dpm-solver", config, {**state, "sigmas": torch.ones(3)})
    for name, tensor in wanted.items():
        assert torch.equal(made[name], tensor), name


def test_pyramids_of_images_have_score_sdes_names() -> None:
    config = narrow("dpm-cifar10-unified")
    style = replace(config.network, input_pyramid="skip", output_pyramid="skip")
    network = build_denoiser(replace(config, network=style)).network
    names = {
        name
        for rule in dpm.rules(network, config.shape, frozenset())
        for name in rule.theirs
        if rule.ours.startswith(("encoders.0.pyramid", "decoders.0.pyramid"))
    }
    assert names == {
        f"{place}.{kind}"
        for place in ("en_modules.5.Conv_0", "de_modules.0.3", "de_modules.0.4")
        for kind in ("weight", "bias")
    }


def test_a_checkpoint_of_another_network_is_named() -> None:
    config = narrow("edm-cifar10-unified")
    network = build_denoiser(config).network
    state = stock(config, list(edm.rules(network, config.shape, frozenset({"model.dec.x"}))))
    first = next(iter(state))
    with pytest.raises(BadInput, match=f"lacks {first}"):
        translate("edm", config, {name: tensor for name, tensor in state.items() if name != first})
    with pytest.raises(BadInput, match=r"has model\.extra"):
        translate("edm", config, {**state, "model.extra": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"is \[1\] where the network has"):
        translate("edm", config, {**state, "model.enc.16x16_conv.bias": torch.zeros(1)})
    with pytest.raises(BadInput, match="no base 'dit'"):
        release_model({"family": "dit"})


COMMON = {
    "channels": 3,
    "encoder_channels": 8,
    "decoder_channels": [8, 8],
    "channel_mult": [1, 2],
    "num_blocks": 1,
}
SIZES: dict[str, dict[str, Any]] = {
    "edm": {
        "img_resolution": 16,
        "attn_resolutions": [8],
        "stage_intervals_sigma": [[0, 2.5], [2.5, "inf"]],
    },
    "dpm-solver": {
        "img_resolution": 16,
        "attn_resolutions": [8],
        "stage_intervals_t": [[0, 0.5], [0.5, 1]],
    },
    "ldm": {
        "latent_resolution": 16,
        "stage_upper_timesteps": [20, 50],
        "attention_downsampling": [2],
    },
}


def read(base: str, **others: Any) -> ModelConfig:
    """The model of small sizes of a base, some of them replaced."""
    return release_model({"family": base, **COMMON, **SIZES[base], **others})


def test_the_schedule_of_a_release_is_read() -> None:
    config = read("ldm", linear_start=0.00085, linear_end=0.012, num_timesteps=50)
    assert config.density == DDPM(0.00085, 0.012, 50)
    assert config.density.to_clock(config.boundaries[0]).item() == pytest.approx(19.5)
    usual = read("ldm", linear_start=0.0015, linear_end=0.0195, num_timesteps=1000)
    assert usual.schedule_settings == ()
    config = read("dpm-solver", beta_min=0.2, beta_max=10)
    assert config.density == VP(0.2, 10)
    clock = 999 * config.density.to_clock(config.boundaries[0]).item()
    assert clock == pytest.approx(500)
    assert read("dpm-solver", beta_min=0.1, beta_max=20).schedule_settings == ()


@pytest.mark.parametrize("last", [80, "inf", float("inf")])
def test_the_last_stage_has_no_upper_boundary(last: Any) -> None:
    config = read("edm", stage_intervals_sigma=[[0, 2.5], [2.5, last]])
    assert config.boundaries == (2.5,)


@pytest.mark.parametrize("none", [-1, None])
def test_heads_of_latent_diffusion_are_given_by_number_or_channels(none: int | None) -> None:
    network = read("ldm", num_heads=none, head_channels=4).network
    assert (network.heads, network.head_channels) == (1, 4)
    network = read("ldm", num_heads=2, head_channels=none).network
    assert (network.heads, network.head_channels) == (2, 0)


def test_attention_below_the_lowest_level_is_left_out() -> None:
    assert read("ldm", attention_downsampling=[2, 32]).network.attention_resolutions == (8,)


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        ("edm", "channel_mult_emb", 2),
        ("edm", "model_type", "DhariwalUNet"),
        ("edm", "decoder_type", "smooth"),
        ("dpm-solver", "sde", "vesde"),
        ("dpm-solver", "resblock_type", "ddpm"),
        ("dpm-solver", "embedding_type", "fourier"),
        ("dpm-solver", "progressive_combine", "cat"),
        ("dpm-solver", "progressive_input", "smooth"),
        ("dpm-solver", "scale_by_sigma", True),
        ("dpm-solver", "fir_kernel", [1, 2, 3, 4]),
        ("ldm", "beta_schedule", "cosine"),
        ("ldm", "resblock_updown", True),
        ("ldm", "use_new_attention_order", True),
    ],
)
def test_settings_that_cannot_be_read_are_refused_by_name(base: str, name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=name):
        read(base, **{name: value})


def test_a_missing_size_is_named() -> None:
    with pytest.raises(BadInput, match="lack stage_intervals_sigma"):
        release_model({"family": "edm", **COMMON})
