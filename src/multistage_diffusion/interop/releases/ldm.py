"""The U-Net of latent diffusion (Rombach et al. 2022) and its multi-stage version."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multistage_diffusion.interop.releases.rules import Rule, grouped_heads, moved, renamed
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.attention import SpatialTransformer
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.schedule import DDPM

__all__ = ["model", "rules"]

BLOCK = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
}
ATTENTIONS = {"self_attention": "attn1", "cross_attention": "attn2"}
NORMS = {
    "norm0": "norm1",
    "norm1": "norm2",
    "norm2": "norm3",
    "gate": "ff.net.0.proj",
    "out": "ff.net.2",
}


def model(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe; boundaries lie half way between two steps."""
    size = sizes["latent_resolution"]
    network = NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(size // factor for factor in sizes["attention_downsampling"]),
        groups=sizes.get("groups", 32),
        group_channels=1,
        norm_eps=1e-5,
        bottom="encoder",
        decoder_attention="first-decoder",
        head_channels=sizes.get("head_channels") or 0,
        heads=sizes.get("num_heads") or 1,
        adaptive_scale=bool(sizes.get("use_scale_shift_norm")),
        residual_scale=False,
        resampling="conv",
        embedding="sinusoidal",
        label_embedding="after",
        context_channels=sizes.get("context_dim") or 0,
        transformer_depth=sizes.get("transformer_depth") or 1,
    )
    schedule = DDPM(
        sizes.get("linear_start", 0.0015),
        sizes.get("linear_end", 0.0195),
        sizes.get("num_timesteps", 1000),
    )
    return ModelConfig(
        shape=(sizes["channels"], size, size),
        classes=sizes.get("num_classes") or sizes.get("label_dim") or 0,
        boundaries=tuple(
            float(schedule.from_clock(step - 0.5)) for step in sizes["stage_upper_timesteps"][:-1]
        ),
        schedule="ddpm",
        preconditioning="ddpm",
        sigma_data=0.5,
        network=network,
    )


def rules(network: StagedUNet, _: Sequence[int], names: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made of the release's.

    Args:
        network: ours.
        names: what the release's tensors are called.
    """
    encoder: Any = network.encoders[0]
    ours = "encoders.0"
    yield from renamed(ours, "time_embed", {"embedding.layer0": "0", "embedding.layer1": "2"})
    if encoder.embedding.label is not None:
        yield Rule(f"{ours}.embedding.label.weight", ("label_emb.weight",), lambda table: table.T)
    yield from moved(f"{ours}.stem", "input_blocks.0.0")
    for index, block in enumerate(encoder.blocks):
        yield from _block(f"{ours}.blocks.{index}", f"input_blocks.{index + 1}", block)
    for index, block in enumerate(encoder.bottom):
        yield from _block(f"{ours}.bottom.{index}", "middle_block", block, first=2 * index)
    unified = any(name.startswith("output_blocks.") for name in names)
    for stage, decoder in enumerate(network.decoders):
        place, out = (
            ("output_blocks", "out") if unified else (f"de_modules.{stage}", f"outs.{stage}")
        )
        yield from _decoder(f"decoders.{stage}", place, decoder)
        yield from renamed(f"decoders.{stage}", out, {"norm": "0", "out": "2"})


def _decoder(ours: str, theirs: str, decoder: Any) -> Iterator[Rule]:
    number, after = -1, 0
    for index, block in enumerate(decoder.blocks):
        if block.how == "up":
            yield from moved(f"{ours}.blocks.{index}.conv", f"{theirs}.{number}.{after}.conv")
        else:
            number, after = number + 1, 1 if block.attention is None else 2
            yield from _block(f"{ours}.blocks.{index}", f"{theirs}.{number}", block)


def _block(ours: str, theirs: str, block: Any, first: int = 0) -> Iterator[Rule]:
    if block.how == "down":
        yield from moved(f"{ours}.conv", f"{theirs}.0.op")
        return
    yield from renamed(ours, f"{theirs}.{first}", BLOCK)
    if any(True for _ in block.skip.parameters()):
        yield from moved(f"{ours}.skip", f"{theirs}.{first}.skip_connection")
    if isinstance(block.attention, SpatialTransformer):
        yield from _transformer(f"{ours}.attention", f"{theirs}.{first + 1}", block.attention)
    elif block.attention is not None:
        yield from moved(f"{ours}.attention.norm", f"{theirs}.{first + 1}.norm")
        yield from grouped_heads(
            f"{ours}.attention.qkv", f"{theirs}.{first + 1}.qkv", block.attention.heads
        )
        yield Rule(
            f"{ours}.attention.proj.weight",
            (f"{theirs}.{first + 1}.proj_out.weight",),
            lambda w: w[..., None],
        )
        yield Rule(f"{ours}.attention.proj.bias", (f"{theirs}.{first + 1}.proj_out.bias",))


def _transformer(ours: str, theirs: str, transformer: SpatialTransformer) -> Iterator[Rule]:
    yield from renamed(ours, theirs, {"norm": "norm", "proj_in": "proj_in", "proj": "proj_out"})
    for index in range(len(transformer.layers)):
        mine, other = f"{ours}.layers.{index}", f"{theirs}.transformer_blocks.{index}"
        yield from renamed(mine, other, NORMS)
        for attention, name in ATTENTIONS.items():
            for layer, letter in (("query", "q"), ("key", "k"), ("value", "v")):
                yield from moved(
                    f"{mine}.{attention}.{layer}", f"{other}.{name}.to_{letter}", bias=False
                )
            yield from moved(f"{mine}.{attention}.out", f"{other}.{name}.to_out.0")
