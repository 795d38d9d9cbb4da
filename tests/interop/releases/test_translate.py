"""The names of stock checkpoints, and the errors for one that does not fit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop import release_model, translate
from multistage_diffusion.interop.releases import edm, ldm
from multistage_diffusion.interop.releases.rules import Rule
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.presets import PRESETS
from multistage_diffusion.schedule import DDPM
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


def test_the_schedule_of_a_release_is_read() -> None:
    sizes = {
        "family": "ldm",
        "latent_resolution": 16,
        "channels": 3,
        "stage_upper_timesteps": [20, 50],
        "encoder_channels": 8,
        "decoder_channels": [8, 8],
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attention_downsampling": [2],
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "num_timesteps": 50,
    }
    config = release_model(sizes)
    assert config.density == DDPM(0.00085, 0.012, 50)
    assert config.density.to_clock(config.boundaries[0]).item() == pytest.approx(19.5)
    usual = {**sizes, "linear_start": 0.0015, "linear_end": 0.0195, "num_timesteps": 1000}
    assert release_model(usual).schedule_settings == ()
