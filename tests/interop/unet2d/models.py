"""Tiny U-Nets of diffusers with random weights, one for each layout that is known."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.conftest import disturb

PLAIN: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
DDPM: dict[str, Any] = {
    **PLAIN,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
RESNET: dict[str, Any] = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
}
UNCONDITIONAL: dict[str, dict[str, Any]] = {
    "ddpm": DDPM,
    "ldm": {**PLAIN, "in_channels": 3, "out_channels": 3, "attention_head_dim": 4},
    "class-conditional": {**PLAIN, "num_class_embeds": 5, "flip_sin_to_cos": False},
    "adm": {
        **PLAIN,
        **RESNET,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 4,
        "block_out_channels": (8, 8),
    },
    "without attention": {
        **PLAIN,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "add_attention": False,
        "freq_shift": 1,
        "sample_size": (8, 16),
    },
}
CROSS: dict[str, Any] = {
    **PLAIN,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
CONDITIONAL: dict[str, dict[str, Any]] = {
    "stable-diffusion-1": {**CROSS, "in_channels": 4, "out_channels": 4},
    "stable-diffusion-2": {
        **CROSS,
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "two transformer layers": {
        **CROSS,
        "transformer_layers_per_block": 2,
        "layers_per_block": 2,
        "resnet_time_scale_shift": "scale_shift",
    },
    "upscaler": {**CROSS, "num_class_embeds": 3, "freq_shift": 1, "norm_eps": 1e-6},
    "without a middle": {
        **CROSS,
        "mid_block_type": None,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "downsample_padding": 0,
    },
}


def unet(kind: str, settings: dict[str, Any]) -> Any:
    """A model of diffusers whose weights all matter, in evaluation."""
    import diffusers

    torch.manual_seed(0)
    return disturb(getattr(diffusers, kind)(**settings)).eval()


def stored(model: Any) -> dict[str, Any]:
    """The content of the model's configuration file."""
    found: dict[str, Any] = json.loads(model.to_json_string())
    return found


def save_pipeline(model: Any, scheduler: Any, folder: Path) -> Path:
    """The folder of an unconditional pipeline."""
    import diffusers

    diffusers.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(folder)
    return folder
