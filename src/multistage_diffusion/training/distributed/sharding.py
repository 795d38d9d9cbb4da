"""Weights, averages and moments sharded over the ranks (FSDP), where one device cannot hold them.

Encoders and decoders are sharded separately. A rank gathers a part when it evaluates it, so all
ranks must evaluate the same parts in the same order, without samples where they have none.
"""

from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from multistage_diffusion import distributed
from multistage_diffusion.networks.unet import StagedUNet

__all__ = ["is_sharded", "shard", "whole", "whole_weights"]


def shard(network: StagedUNet) -> None:
    """Shards each parameter; gradients are summed over the ranks when they are computed.

    Only contiguous tensors can be sharded, so weights leave channels-last.
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    for part in network.parts:
        sharded = fully_shard(part, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all ranks if it is sharded. All ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(network: StagedUNet) -> bool:
    """Whether a rank holds only a part of each weight."""
    return isinstance(next(network.parameters()), DTensor)


def whole_weights(network: StagedUNet) -> dict[str, Tensor]:
    """The weights in rank 0's main memory; empty elsewhere. All ranks must call it.

    Sharded ones are gathered one at a time.
    """
    weights = {}
    for name, tensor in network.state_dict().items():
        gathered = whole(tensor)
        if distributed.is_main_process():
            weights[name] = gathered.cpu()
    return weights
