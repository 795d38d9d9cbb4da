"""The memory that training takes, checked before it starts."""

import math

from multistage_diffusion import distributed
from multistage_diffusion.cost import activation_bytes, total_parameters
from multistage_diffusion.memory import check_memory, free_memory
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.precision import dtype_of

__all__ = ["check_training_memory"]

COPIES = 5  # weights, their gradient, two moments, averaged weights
FLOAT32 = 4  # bytes
MOST_FEATURES = 400
"""Upper bound of the feature maps kept for the backward pass, in multiples of a decoder's width."""


def check_training_memory(config: RunConfig) -> None:
    """Raises BadInput if weights or a batch need more memory than there is.

    The exact count for a batch takes seconds, so it is made only if an upper bound does not fit.
    """
    device = distributed.default_device()
    copies = COPIES + len(config.training.averaging.posthoc_ema)
    weights = copies * FLOAT32 * total_parameters(config.model)
    check_memory(weights, "Training the network", "give it smaller widths or fewer blocks", device)
    images = _largest_part(config)
    widest = max(config.model.network.decoder_widths)
    bound = FLOAT32 * images * math.prod(config.model.shape) * widest * MOST_FEATURES
    if bound < free_memory(device):
        return
    advice = "give a smaller --batch-size, or split each batch with --accumulate"
    check_memory(weights + images * _image_bytes(config), "A training step", advice, device)


def _largest_part(config: RunConfig) -> int:
    """Images that a process computes at once."""
    training = config.training
    processes = distributed.world_size()
    return -(-training.batch_size // (processes * training.execution.accumulate))


def _image_bytes(config: RunConfig) -> float:
    """What an image keeps for the backward pass, averaged over the stages."""
    dtype = dtype_of(config.training.precision)
    shares = enumerate(stage_shares(config))
    return sum(share * activation_bytes(config.model, stage, dtype) for stage, share in shares)
