"""Settings of diffusers' U-Nets, translated into ours; unsupported ones are refused by name."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.unet2d.classes import BLOCKS, CLASSES, MIDDLES, UNetClass
from multistage_diffusion.interop.unet2d.scheduler import Prediction
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import NetworkConfig

__all__ = ["unet_config"]


def unet_config(given: Mapping[str, Any], prediction: Prediction) -> ModelConfig:
    """The unified model that a configuration of diffusers describes.

    Args:
        given: the content of its ``config.json``.
        prediction: what it was trained to predict.

    Raises:
        BadInput: if a setting is not supported; names the first one.
    """
    kind = CLASSES.get(given.get("_class_name", ""))
    if kind is None:
        raise BadInput(
            f"The model is a {given.get('_class_name')}; {' and '.join(CLASSES)} can be converted."
        )
    settings = {**kind.settings, **given}
    _check_fixed(kind, given)
    if settings["in_channels"] != settings["out_channels"]:
        raise _refused("out_channels", settings["out_channels"], "differs from in_channels")
    return ModelConfig(
        shape=(settings["in_channels"], *_size(settings["sample_size"])),
        classes=settings["num_class_embeds"] or 0,
        boundaries=(),
        schedule=prediction.schedule,
        schedule_settings=prediction.schedule_settings,
        preconditioning=prediction.preconditioning,
        sigma_data=0.5,
        network=_network(kind, settings),
    )


def _refused(name: str, value: object, why: str = "") -> BadInput:
    return BadInput(f"The setting {name} {value} is not supported{why and ': it '}{why}.")


def _check_fixed(kind: UNetClass, given: Mapping[str, Any]) -> None:
    """Raises BadInput for a setting with another value than the only one, or an unknown one."""
    known = {*kind.settings, *kind.ignored}
    for name, value in given.items():
        only = kind.fixed.get(name)
        plain = "silu" if value == "swish" else value
        alike = plain == only or not (plain or only)
        if name not in known and not name.startswith("_") and not alike:
            raise _refused(name, value)


def _size(value: Any) -> tuple[int, int]:
    if value is None:
        raise BadInput("config.json needs a sample_size, the height and width of an image.")
    height, width = value if isinstance(value, Sequence) else (value, value)
    return height, width


def _network(kind: UNetClass, settings: Mapping[str, Any]) -> NetworkConfig:
    width, multiples = _widths(settings)
    attends, resampling = _blocks(kind, settings)
    longer = max(_size(settings["sample_size"]))
    heads, head_channels = _heads(kind, settings)
    cross = kind.attention == "cross"
    return NetworkConfig(
        encoder_widths=(width,),
        decoder_widths=(width,),
        channel_mult=multiples,
        blocks=_single("layers_per_block", settings),
        attention_resolutions=tuple(longer >> level for level, here in enumerate(attends) if here),
        dropout=settings["dropout"],
        groups=_groups(settings["norm_num_groups"]),
        group_channels=1,
        norm_eps=settings["norm_eps"],
        bottom="none" if settings["mid_block_type"] is None else "encoder",
        bottom_attention=_middle(kind, settings),
        decoder_attention="each",
        head_channels=head_channels,
        heads=heads,
        residual_scale=False,
        adaptive_scale=_adaptive(settings["resnet_time_scale_shift"]),
        project_resampled=False,
        resampling=resampling,
        downsampling_padding=_padding(settings["downsample_padding"]),
        embedding=_embedding(settings["freq_shift"]),
        label_embedding="after",
        context_channels=_single("cross_attention_dim", settings) if cross else 0,
        transformer_depth=_single("transformer_layers_per_block", settings) if cross else 1,
    )


def _groups(value: int | None) -> int:
    if value is None:
        raise _refused("norm_num_groups", value)
    return value


def _single(name: str, settings: Mapping[str, Any]) -> int:
    """A setting that must be one number for all levels."""
    value = settings[name]
    values = list(value) if isinstance(value, Sequence) else [value]
    if len({str(one) for one in values}) != 1 or not isinstance(values[0], int):
        raise _refused(name, value, "differs from level to level")
    return values[0]


def _widths(settings: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Channels of the top level, and those of each level as multiples."""
    channels = list(settings["block_out_channels"])
    width = channels[0]
    if any(count % width for count in channels):
        raise _refused(
            "block_out_channels", channels, "has levels that are no multiples of the first"
        )
    if settings["time_embedding_dim"] not in (None, 4 * width):
        raise _refused("time_embedding_dim", settings["time_embedding_dim"])
    return width, tuple(count // width for count in channels)


def _blocks(
    kind: UNetClass, settings: Mapping[str, Any]
) -> tuple[list[bool], Literal["block", "conv"]]:
    """Which levels have attention, and how the network resamples between levels."""
    down = [_block("down_block_types", name) for name in settings["down_block_types"]]
    up = [_block("up_block_types", name) for name in settings["up_block_types"]]
    attention = [here for here, _ in down]
    other = next((here for here in attention if here not in ("none", kind.attention)), None)
    if other:
        raise _refused("down_block_types", settings["down_block_types"], f"has {other}-attention")
    if attention != [here for here, _ in reversed(up)]:
        raise _refused(
            "up_block_types", settings["up_block_types"], "does not mirror down_block_types"
        )
    between = [how for _, how in (*down[:-1], *up[:-1])]
    ways = {settings.get(how, how) for how in between}
    if len(ways) > 1 or not ways <= {"conv", "resnet"}:
        raise _refused("downsample_type", sorted(map(str, ways)), "must be the same in all blocks")
    return [here != "none" for here in attention], "block" if "resnet" in ways else "conv"


def _block(setting: str, name: str) -> tuple[str, str]:
    plain = name.removeprefix("UNetRes")
    if plain not in BLOCKS:
        raise _refused(setting, name)
    return BLOCKS[plain]


def _middle(kind: UNetClass, settings: Mapping[str, Any]) -> bool:
    """Whether the blocks at the lowest resolution have attention."""
    name = settings["mid_block_type"]
    if name not in (None, MIDDLES[kind.attention]):
        raise _refused("mid_block_type", name)
    attends = bool(settings.get("add_attention", True))
    groups = settings.get("attn_norm_num_groups")
    default = settings["resnet_time_scale_shift"] == "default" or kind.attention == "cross"
    unusual = groups != settings["norm_num_groups"] and not (groups is None and default)
    if name is not None and attends and kind.attention == "self" and unusual:
        raise _refused("attn_norm_num_groups", groups, "must equal norm_num_groups")
    return attends


def _heads(kind: UNetClass, settings: Mapping[str, Any]) -> tuple[int, int]:
    """The number of heads, and the channels of a head where these are fixed."""
    value, channels = settings["attention_head_dim"], settings["block_out_channels"]
    if kind.attention == "self":
        if value is not None and any(count % value for count in channels):
            raise _refused("attention_head_dim", value, f"does not divide {list(channels)}")
        return 1, value or 0
    if isinstance(value, int):  # diffusers means the number of heads
        return value, 0
    sizes = {count / heads for count, heads in zip(channels, value, strict=True)}
    if len(sizes) == 1:
        return 1, int(sizes.pop())
    return _single("attention_head_dim", settings), 0


def _adaptive(name: str) -> bool:
    if name not in ("default", "scale_shift"):
        raise _refused("resnet_time_scale_shift", name)
    return name == "scale_shift"


def _padding(value: int) -> Literal["sides", "end"]:
    if value not in (0, 1):
        raise _refused("downsample_padding", value)
    return "sides" if value else "end"


def _embedding(shift: int) -> Literal["positional", "sinusoidal"]:
    if shift not in (0, 1):
        raise _refused("freq_shift", shift)
    return "positional" if shift else "sinusoidal"
