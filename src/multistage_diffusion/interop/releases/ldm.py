"""The U-Net of latent diffusion (Rombach et al. 2022) and its multi-stage version."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multistage_diffusion.interop.releases.rules import (
    Rule,
    as_convolution,
    grouped_qkv_rules,
    layer_rules,
    module_rules,
)
from multistage_diffusion.interop.releases.sizes import check_supported, schedule_settings
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.networks.attention import SpatialTransformer
from multistage_diffusion.schedule import DDPM, make_schedule

__all__ = ["model_config", "rules", "transformer_rules"]

SCHEDULE = {"linear_start": "beta_start", "linear_end": "beta_end", "num_timesteps": "steps"}
SUPPORTED = {
    "beta_schedule": "linear",
    "parameterization": "eps",
    "dims": 2,
    "conv_resample": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
}
EMBEDDING = {"embedding.layer0": "0", "embedding.layer1": "2"}
BLOCK = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
}
OUTER = {"proj_in": "proj_in", "proj": "proj_out"}
TRANSFORMER_LAYER = {
    "norm0": "norm1",
    "norm1": "norm2",
    "norm2": "norm3",
    "gate": "ff.net.0.proj",
    "out": "ff.net.2",
}
ATTENTIONS = {"self_attention": "attn1", "cross_attention": "attn2"}
PROJECTIONS = {"query": "to_q", "key": "to_k", "value": "to_v"}
OUTPUT = {"norm": "0", "out": "2"}


def model_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe; boundaries are half way between two steps.

    Raises:
        BadInput: for networks with other blocks, schedules or targets than the paper's.
    """
    check_supported(sizes, SUPPORTED)
    settings = schedule_settings(sizes, DDPM(), SCHEDULE)
    schedule = make_schedule("ddpm", settings)
    steps = [step - 0.5 for step in sizes["stage_upper_timesteps"][:-1]]
    size = sizes["latent_resolution"]
    return ModelConfig(
        shape=(sizes["channels"], size, size),
        classes=sizes.get("num_classes") or sizes.get("label_dim") or 0,
        boundaries=tuple(float(schedule.from_clock(step)) for step in steps),
        schedule="ddpm",
        schedule_settings=settings,
        preconditioning="ddpm",
        sigma_data=0.5,
        network=_network_config(sizes),
    )


def _network_config(sizes: Mapping[str, Any]) -> NetworkConfig:
    size = sizes["latent_resolution"]
    attended = [factor for factor in sizes["attention_downsampling"] if factor <= size]
    return NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(size // factor for factor in attended),
        groups=sizes.get("groups", 32),
        group_channels=1,
        norm_eps=1e-5,
        bottom="encoder",
        decoder_attention="first-decoder",
        head_channels=_given(sizes, "head_channels", 0),
        heads=_given(sizes, "num_heads", 1),
        adaptive_scale=bool(sizes.get("use_scale_shift_norm")),
        residual_scale=False,
        resampling="conv",
        embedding="sinusoidal",
        label_embedding="after",
        context_channels=sizes.get("context_dim") or 0,
        transformer_depth=sizes.get("transformer_depth") or 1,
    )


def _given(sizes: Mapping[str, Any], name: str, usual: int) -> int:
    """A number of heads or of their channels; the release writes -1 or None for none."""
    given = sizes.get(name)
    return usual if given is None or given == -1 else given


def rules(network: StagedUNet, _: Sequence[int], names: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made from the release's.

    Args:
        network: ours; the image shape is not needed.
        names: the names of the release's tensors.
    """
    yield from _encoder_rules(network.encoders[0])
    unified = any(name.startswith("output_blocks.") for name in names)
    for stage, decoder in enumerate(network.decoders):
        ours = f"decoders.{stage}"
        yield from _decoder_rules(
            ours, "output_blocks" if unified else f"de_modules.{stage}", decoder
        )
        yield from module_rules(ours, "out" if unified else f"outs.{stage}", OUTPUT)


def _encoder_rules(encoder: Any) -> Iterator[Rule]:
    ours = "encoders.0"
    yield from module_rules(ours, "time_embed", EMBEDDING)
    if encoder.embedding.label is not None:
        yield Rule(f"{ours}.embedding.label.weight", ("label_emb.weight",), lambda table: table.T)
    yield from layer_rules(f"{ours}.stem", "input_blocks.0.0")
    for index, block in enumerate(encoder.blocks):
        yield from _block_rules(f"{ours}.blocks.{index}", f"input_blocks.{index + 1}", block)
    for index, block in enumerate(encoder.bottom):
        yield from _block_rules(f"{ours}.bottom.{index}", "middle_block", block, first=2 * index)


def _decoder_rules(ours: str, theirs: str, decoder: Any) -> Iterator[Rule]:
    """The blocks of a decoder; the release counts an up-sampling to the block before it."""
    number = -1
    following = 0
    for index, block in enumerate(decoder.blocks):
        if block.how == "up":
            place = f"{theirs}.{number}.{following}"
            yield from layer_rules(f"{ours}.blocks.{index}.conv", f"{place}.conv")
        else:
            number += 1
            following = 1 if block.attention is None else 2
            yield from _block_rules(f"{ours}.blocks.{index}", f"{theirs}.{number}", block)


def _block_rules(ours: str, theirs: str, block: Any, first: int = 0) -> Iterator[Rule]:
    """A block, whose layers the release numbers from ``first`` on."""
    if block.how == "down":
        yield from layer_rules(f"{ours}.conv", f"{theirs}.0.op")
        return
    yield from module_rules(ours, f"{theirs}.{first}", BLOCK)
    if list(block.skip.parameters()):
        yield from layer_rules(f"{ours}.skip", f"{theirs}.{first}.skip_connection")
    if isinstance(block.attention, SpatialTransformer):
        yield from transformer_rules(f"{ours}.attention", f"{theirs}.{first + 1}", block.attention)
    elif block.attention is not None:
        yield from _attention_rules(f"{ours}.attention", f"{theirs}.{first + 1}", block.attention)


def _attention_rules(ours: str, theirs: str, attention: Any) -> Iterator[Rule]:
    yield from layer_rules(f"{ours}.norm", f"{theirs}.norm")
    yield from grouped_qkv_rules(f"{ours}.qkv", f"{theirs}.qkv", attention.heads)
    yield Rule(f"{ours}.proj.weight", (f"{theirs}.proj_out.weight",), as_convolution)
    yield Rule(f"{ours}.proj.bias", (f"{theirs}.proj_out.bias",))


def transformer_rules(ours: str, theirs: str, transformer: SpatialTransformer) -> Iterator[Rule]:
    """The layers of a transformer, whose outer ones may be convolutions or dense layers."""
    yield from layer_rules(f"{ours}.norm", f"{theirs}.norm")
    for name, other in OUTER.items():
        yield Rule(f"{ours}.{name}.weight", (f"{theirs}.{other}.weight",), as_convolution)
        yield Rule(f"{ours}.{name}.bias", (f"{theirs}.{other}.bias",))
    for index in range(len(transformer.layers)):
        layer = f"{ours}.layers.{index}"
        other = f"{theirs}.transformer_blocks.{index}"
        yield from module_rules(layer, other, TRANSFORMER_LAYER)
        for attention, name in ATTENTIONS.items():
            for projection, letter in PROJECTIONS.items():
                yield from layer_rules(
                    f"{layer}.{attention}.{projection}", f"{other}.{name}.{letter}", bias=False
                )
            yield from layer_rules(f"{layer}.{attention}.out", f"{other}.{name}.to_out.0")
