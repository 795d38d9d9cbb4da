"""The networks of other libraries, and the steps of their training."""

import copy
import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from machine import DEVICE
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks.config import NetworkConfig

__all__ = ["FOREIGN", "ForeignSteps", "closest_width", "require_libraries"]

INSTALL = (
    "pip install diffusers einops && pip install --no-deps denoising-diffusion-pytorch ema-pytorch"
)


def attention_by_level(shape: Sequence[int], network: NetworkConfig) -> list[bool]:
    """Whether a network attends at each of its levels, largest images first."""
    side = max(shape[1:])
    levels = range(len(network.channel_mult))
    return [side >> level in network.attention_resolutions for level in levels]


def diffusers_unet(config: ModelConfig, width: int) -> nn.Module:
    """A network with levels, blocks, attention, heads, groups and dropout like ours.

    On the way up every block of a level attends, not only one.
    """
    from diffusers import UNet2DModel

    network = config.network
    attends = attention_by_level(config.shape, network)
    down = tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends)
    up = tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends))
    unet: Any = UNet2DModel(
        sample_size=config.shape[1:],
        in_channels=config.shape[0],
        out_channels=config.shape[0],
        down_block_types=down,
        up_block_types=up,
        block_out_channels=tuple(width * mult for mult in network.channel_mult),
        layers_per_block=network.blocks,
        attention_head_dim=network.head_channels or None,
        norm_num_groups=math.gcd(network.groups, width),
        dropout=network.dropout,
    )
    return unet


def denoising_diffusion_unet(config: ModelConfig, width: int) -> nn.Module:
    """A network with levels, attention and dropout like ours.

    It always has two blocks in a level, and linear attention where there is no other. Each level
    has the channels that the one above passes on to it.
    """
    from denoising_diffusion_pytorch import Unet

    network = config.network
    return Unet(
        dim=width,
        init_dim=width * network.channel_mult[0],
        dim_mults=(*network.channel_mult[1:], network.channel_mult[-1]),
        channels=config.shape[0],
        full_attn=tuple(attention_by_level(config.shape, network)),
        flash_attn=True,
        dropout=network.dropout,
    )


FOREIGN = {
    "diffusers UNet2DModel": diffusers_unet,
    "denoising_diffusion_pytorch Unet": denoising_diffusion_unet,
}


def predict(network: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    """The network's output, taken out of the record in which diffusers returns it."""
    output = network(x, time)
    return output if isinstance(output, Tensor) else output.sample


class ForeignSteps:
    """A network of another library and the steps of its training.

    As ``train.Steps``, except for the plain loss on the noise.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        memory_format: torch.memory_format,
        shape: Sequence[int],
        batch: int,
    ) -> None:
        network = build().to(DEVICE)
        self.network: nn.Module = network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=True)
        self.y = torch.randn(batch, *shape, device=DEVICE).to(memory_format=memory_format)
        self.noise = torch.randn(batch, *shape, device=DEVICE).to(memory_format=memory_format)
        self.time = torch.randint(1000, (batch,), device=DEVICE)

    def __call__(self) -> None:
        """Trains on a batch."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            predicted = predict(self.network, self.y + self.noise, self.time)
        F.mse_loss(predicted.float(), self.noise).backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        nn.utils.get_total_norm(gradients)  # ours measures it too
        self.optimizer.step()
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        average = list(self.average.parameters())
        torch._foreach_lerp_(average, list(self.network.parameters()), 0.01)


def count_macs(network: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Multiply-accumulates of an image on torch's meta device.

    Returns:
        Those of the forward pass, and those of forward and backward pass together.
    """
    image = torch.empty(1, *shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        output = predict(network, image, torch.empty(1, device="meta"))
        forward = counter.get_total_flops() // 2
        output.sum().backward()
    return forward, counter.get_total_flops() // 2


def closest_width(
    build: Callable[[int], nn.Module], shape: Sequence[int], target: int
) -> tuple[int, int]:
    """The width whose forward pass costs closest to ``target``, among the multiples of 8.

    For ``edm-cifar10``, with 21.19 GMAC: 128 for diffusers, as ours (21.16 GMAC), 168 for
    denoising_diffusion_pytorch (21.01).

    Returns:
        The width, and the multiply-accumulates of an image with it, forward and backward.
    """

    @lru_cache
    def cost(width: int) -> tuple[int, int]:
        with torch.device("meta"):
            return count_macs(build(width), shape)

    widths = range(8, 1025, 8)
    above = bisect_left(widths, target, key=lambda width: cost(width)[0])
    nearby = widths[max(above - 1, 0) : above + 1]
    width = min(nearby, key=lambda width: abs(cost(width)[0] - target))
    return width, cost(width)[1]


def require_libraries() -> None:
    """Ends with one line that says what to install if a library is missing."""
    try:
        import_module("diffusers")
        stand_in_for_torchvision()
        import_module("denoising_diffusion_pytorch")
    except ImportError as error:
        print(f"A library to compare with is missing ({error}): {INSTALL}", file=sys.stderr)
        raise SystemExit(2) from None


def stand_in_for_torchvision() -> None:
    """Puts empty modules in the place of a torchvision that is missing or of another torch.

    denoising_diffusion_pytorch imports it only to load and save images; the network does not use
    it.
    """
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError):  # torchvision of another build of torch lacks its operators
        package = empty_module("torchvision")
        for name in ("transforms", "utils"):
            setattr(package, name, empty_module(f"torchvision.{name}"))


def empty_module(name: str) -> ModuleType:
    """A module without contents, which can be imported from now on."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return module
