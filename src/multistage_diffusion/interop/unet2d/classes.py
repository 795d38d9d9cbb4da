"""diffusers' classes of U-Nets: their settings, and the blocks that these name."""

from dataclasses import dataclass
from typing import Any

__all__ = ["BLOCKS", "CLASSES", "MIDDLES", "UNetClass"]

SHARED: dict[str, Any] = {
    "sample_size": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "attention_head_dim": 8,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
    "time_embedding_dim": None,
}
SHARED_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "mid_block_scale_factor": 1,
    "time_embedding_type": "positional",
}


@dataclass(frozen=True)
class UNetClass:
    """A class of diffusers and its settings, with their defaults."""

    attention: str
    """The attention of its blocks, ``self`` or ``cross``; see ``BLOCKS``."""
    settings: dict[str, Any]
    """Settings that are translated."""
    fixed: dict[str, Any]
    """Settings of which only the default is supported."""
    ignored: tuple[str, ...] = ()
    """Settings that do not change what the network computes."""


CLASSES = {
    "UNet2DModel": UNetClass(
        attention="self",
        settings={
            **SHARED,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (224, 448, 672, 896),
            "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
            "mid_block_type": "UNetMidBlock2D",
            "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
            "downsample_type": "conv",
            "upsample_type": "conv",
            "attn_norm_num_groups": None,
            "add_attention": True,
        },
        fixed=SHARED_FIXED,
        ignored=("num_train_timesteps",),
    ),
    "UNet2DConditionModel": UNetClass(
        attention="cross",
        settings={
            **SHARED,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
            "cross_attention_dim": 1280,
            "transformer_layers_per_block": 1,
        },
        fixed={
            **SHARED_FIXED,
            "addition_embed_type": None,
            "attention_type": "default",
            "class_embeddings_concat": False,
            "conv_in_kernel": 3,
            "conv_out_kernel": 3,
            "cross_attention_norm": None,
            "dual_cross_attention": False,
            "encoder_hid_dim": None,
            "encoder_hid_dim_type": None,
            "mid_block_only_cross_attention": None,
            "num_attention_heads": None,
            "only_cross_attention": False,
            "resnet_out_scale_factor": 1,
            "resnet_skip_time_act": False,
            "reverse_transformer_layers_per_block": None,
            "time_cond_proj_dim": None,
            "time_embedding_act_fn": None,
            "timestep_post_act": None,
        },
        ignored=(
            "addition_embed_type_num_heads",
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
            "upcast_attention",  # changes half precision only
            "use_linear_projection",  # the same function with other shapes
        ),
    ),
}
BLOCKS = {
    "DownBlock2D": ("none", "conv"),
    "AttnDownBlock2D": ("self", "downsample_type"),
    "ResnetDownsampleBlock2D": ("none", "resnet"),
    "CrossAttnDownBlock2D": ("cross", "conv"),
    "UpBlock2D": ("none", "conv"),
    "AttnUpBlock2D": ("self", "upsample_type"),
    "ResnetUpsampleBlock2D": ("none", "resnet"),
    "CrossAttnUpBlock2D": ("cross", "conv"),
}
"""Attention of each block, and how it resamples: ``conv``, ``resnet``, or the name of the setting
that chooses one of these."""
MIDDLES = {"self": "UNetMidBlock2D", "cross": "UNetMidBlock2DCrossAttn"}
"""The block at the lowest resolution, by the attention of the class."""
