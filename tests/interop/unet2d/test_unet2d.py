"""U-Nets of diffusers as ours: the same function, and unsupported settings are refused."""

from typing import Any

import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.unet2d import Prediction, unet_config, unet_weights
from multistage_diffusion.model import build_denoiser
from tests.interop.unet2d.models import (
    CONDITIONAL,
    CROSS,
    PLAIN,
    PUBLISHED,
    UNCONDITIONAL,
    stored,
    unet,
)

CASES = [
    *(("UNet2DModel", name, settings) for name, settings in UNCONDITIONAL.items()),
    *(("UNet2DConditionModel", name, settings) for name, settings in CONDITIONAL.items()),
]
NOISE = Prediction("ddpm-linear", (), "ddpm")
TIMES = torch.tensor([0.0, 37.0, 500.0, 999.0])


@pytest.mark.parametrize(("kind", "name", "settings"), CASES, ids=[name for _, name, _ in CASES])
def test_the_network_is_the_same_function(kind: str, name: str, settings: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    theirs = unet(kind, settings)
    config = unet_config(stored(theirs), NOISE)
    network = build_denoiser(config).network.eval()
    network.load_state_dict(unet_weights(config, stored(theirs), theirs.state_dict()))
    x = torch.randn(4, *config.shape)
    labels = torch.tensor([0, 1, 2, 1]) if config.classes else None
    channels = config.network.context_channels
    context = torch.randn(4, 5, channels) if channels else None
    given = {"class_labels": labels} | ({"encoder_hidden_states": context} if channels else {})
    with torch.no_grad():
        expected = theirs(x, TIMES, **given).sample
        found = network(x, TIMES, [4], Conditions(labels, context=context))
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_taken_tensor_by_tensor(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    kind, settings, parameters = PUBLISHED[name]
    with torch.device("meta"):
        theirs = getattr(diffusers, kind)(**settings)
    config = unet_config(stored(theirs), NOISE)
    weights = unet_weights(config, stored(theirs), theirs.state_dict())
    assert sum(tensor.numel() for tensor in weights.values()) == parameters


SKIP_BLOCKS = ("SkipDownBlock2D", "AttnDownBlock2D")
ODD = {"down_block_types": SKIP_BLOCKS}
HALF = {"up_block_types": ("UpBlock2D", "UpBlock2D")}
LEARNED = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
SDXL = {"addition_embed_type": "text_time", "transformer_layers_per_block": (1, 2)}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({**PLAIN, "_class_name": "UNet1DModel"}, "The model is a UNet1DModel; UNet2DModel and"),
        ({**PLAIN, **ODD}, "down_block_types SkipDownBlock2D is not supported"),
        ({**PLAIN, **HALF}, "up_block_types .* does not mirror"),
        ({**PLAIN, **LEARNED}, "time_embedding_type learned"),
        ({**PLAIN, "act_fn": "mish"}, "act_fn mish"),
        ({**PLAIN, "out_channels": 2}, "out_channels 2 .* differs from in_channels"),
        ({**PLAIN, "block_out_channels": (8, 12)}, r"block_out_channels \[8, 12\]"),
        ({**PLAIN, "freq_shift": 2}, "freq_shift 2"),
        ({**PLAIN, "mid_block_scale_factor": 1.41}, "mid_block_scale_factor 1.41"),
        ({**PLAIN, "attention_head_dim": 7}, "attention_head_dim 7 .* does not divide"),
        ({**PLAIN, "resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups None"),
        ({**PLAIN, "downsample_type": "resnet", "upsample_type": "conv"}, "downsample_type"),
        ({**PLAIN, "sample_size": None}, "needs a sample_size"),
        ({**PLAIN, "a_later_setting": 3}, "a_later_setting 3"),
        ({**PLAIN, "down_block_types": CROSS["down_block_types"]}, "has cross-attention"),
        ({**CROSS, "_class_name": "UNet2DConditionModel", **SDXL}, "addition_embed_type text_time"),
        (
            {**CROSS, "_class_name": "UNet2DConditionModel", "layers_per_block": (1, 2)},
            "layers_per_block .* differs from level to level",
        ),
        (
            {**CROSS, "_class_name": "UNet2DConditionModel", "mid_block_type": "UNetMidBlock2D"},
            "mid_block_type UNetMidBlock2D",
        ),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(settings: dict[str, Any], says: str) -> None:
    both = (*PLAIN["down_block_types"][1:], "AttnDownBlock2D")
    if settings.get("downsample_type"):
        settings = {**settings, "down_block_types": both}
        settings["up_block_types"] = ("AttnUpBlock2D", "AttnUpBlock2D")
    with pytest.raises(BadInput, match=says):
        unet_config({"_class_name": "UNet2DModel", **settings}, NOISE)


def test_settings_without_effect_or_without_a_value_are_taken() -> None:
    plain = unet_config({"_class_name": "UNet2DModel", **PLAIN}, NOISE)
    more = {"act_fn": "swish", "center_input_sample": None, "a_later_setting": None}
    others = {"_diffusers_version": "0.1", "num_train_timesteps": 1000}
    given = {"_class_name": "UNet2DModel", **PLAIN, **more, **others}
    assert unet_config(given, NOISE) == plain
