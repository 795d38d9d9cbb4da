"""Weights, averages and Adam's moments split over the processes (FSDP), where one device cannot hold them whole.

Encoder and decoders are split each for itself. A process gathers a part when it evaluates it, so all processes must evaluate the
same parts in the same order, with no samples where they have none.
"""

import torch
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from multistage_diffusion.networks.unet import StagedUNet

__all__ = ["placed_like", "shard", "whole"]


def shard(network: StagedUNet) -> None:
    """Splits each parameter; gradients are added up over the processes when they are computed.

    Only what lies contiguously in memory can be split, so weights go back from channels-last.
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    for part in network.parts:
        split = fully_shard(part, reshard_after_forward=True)
        split.set_gradient_divide_factor(1.0)
        split.set_force_sum_reduction_for_comms(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be split, in one piece. All processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole value on the device of a parameter, in its layout and split as it is."""
    here = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(here, parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter).copy_(here)
