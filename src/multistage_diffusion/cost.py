"""What a network costs in each stage, counted by torch itself.

Nothing is computed: tensors are on the meta device or fake.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.memory import check_memory, free_memory
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks import StagedUNet

__all__ = [
    "StageCost",
    "activation_bytes",
    "check_sampling_memory",
    "evaluation_bytes",
    "known_costs",
    "mean_training_macs",
    "reused_macs",
    "stage_costs",
    "step_macs",
    "total_parameters",
    "unified",
]


MOST_FEATURES = 64
"""Upper bound of the feature maps, in multiples of a decoder's width, that an evaluation holds."""


@dataclass(frozen=True)
class StageCost:
    """The part of a network that serves one stage."""

    parameters: int
    """Parameters of its encoder and decoder; a shared encoder is counted in every stage."""
    macs: int
    """Multiply-accumulates of matrix products and convolutions for one image, forward."""
    training_macs: int
    """The same, forward and backward."""


def unified(config: ModelConfig) -> ModelConfig:
    """The unified twin: one decoder, of the width of the (first) encoder, for all noise levels."""
    width = config.network.encoder_widths[:1]
    return replace(
        config,
        boundaries=(),
        network=replace(config.network, encoder_widths=width, decoder_widths=width),
    )


def stage_costs(config: ModelConfig, frozen: Sequence[bool] = ()) -> list[StageCost]:
    """Cost in each stage, smallest noise first, counted on torch's meta device.

    Args:
        config: the model.
        frozen: which encoders, then which decoders are not trained; none, if not given.
    """
    with torch.device("meta"):
        denoiser = build_denoiser(config)
    parts = denoiser.network.parts
    for part, still in zip(parts, frozen or [False] * len(parts), strict=True):
        part.requires_grad_(not still)
    return [_cost(denoiser, config, stage) for stage in range(len(denoiser.stages))]


def step_macs(
    config: ModelConfig, frozen: tuple[bool, ...], counts: Sequence[int]
) -> tuple[int, int]:
    """Multiply-accumulates of a training step, forward and backward.

    Args:
        config, frozen: as for ``stage_costs``.
        counts: images of each stage in the batch.
    """
    costs = list(zip(counts, known_costs(config, frozen), strict=True))
    forward = sum(count * cost.macs for count, cost in costs)
    return forward, sum(count * cost.training_macs for count, cost in costs) - forward


@lru_cache(maxsize=16)
def known_costs(config: ModelConfig, frozen: tuple[bool, ...]) -> tuple[StageCost, ...]:
    """``stage_costs``, cached."""
    return tuple(stage_costs(config, frozen))


def reused_macs(config: ModelConfig) -> list[int]:
    """Multiply-accumulates of an evaluation in each stage that reuses the encoder's features."""
    with torch.device("meta"):
        denoiser = build_denoiser(config)
        x = torch.empty(1, *config.shape)
        labels = torch.zeros(1, dtype=torch.long) if config.classes else None
    return [_reused(denoiser, x, Conditions(labels), k) for k in range(len(denoiser.stages))]


@torch.no_grad()
def _reused(denoiser: NetworkDenoiser, x: Tensor, conditions: Conditions, stage: int) -> int:
    network = denoiser.network
    encoder: Any = network.encoder(stage)
    features = encoder(x, x.new_empty(1), conditions)
    with FlopCounterMode(display=False) as counter:
        network.decoder(stage)(encoder.renew(features, x, x.new_empty(1), conditions))
    return counter.get_total_flops() // 2


def mean_training_macs(costs: Sequence[StageCost], shares: Sequence[float]) -> float:
    """Multiply-accumulates of a training image, forward and backward, averaged over the stages."""
    return sum(share * cost.training_macs for share, cost in zip(shares, costs, strict=True))


def total_parameters(config: ModelConfig) -> int:
    """Parameters of the whole network."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_denoiser(config).parameters())


def _cost(denoiser: NetworkDenoiser, config: ModelConfig, stage: int) -> StageCost:
    network = denoiser.network
    with FlopCounterMode(display=False) as counter:
        output = _forward(network, config, stage, batch=1, device="meta")
        forward = counter.get_total_flops() // 2
        if output.requires_grad:
            output.sum().backward()
    parts = (network.encoder(stage), network.decoder(stage))
    parameters = sum(p.numel() for part in parts for p in part.parameters())
    return StageCost(parameters, forward, counter.get_total_flops() // 2)


def _forward(
    network: StagedUNet, config: ModelConfig, stage: int, batch: int, device: str
) -> Tensor:
    """The network's output for a batch of one stage."""
    counts = [batch * (k == stage) for k in range(config.network.stages)]
    image = torch.empty(batch, *config.shape, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device) if config.classes else None
    return network(image, image.new_empty(batch), counts, Conditions(labels))


def activation_bytes(config: ModelConfig, stage: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that one more image keeps between forward and backward pass, computed in ``dtype``."""
    with FakeTensorMode():
        network = build_denoiser(config).network
        one, two = (_saved_bytes(network, config, stage, batch, dtype) for batch in (1, 2))
    return two - one


def check_sampling_memory(config: ModelConfig, batch: int, device: torch.device | str) -> None:
    """Raises BadInput if a device lacks the memory to evaluate a network on a batch.

    The exact count takes a second, so it is made only if an upper bound exceeds the free memory.
    """
    images = 4 * batch * math.prod(config.shape)
    if images * max(config.network.decoder_widths) < free_memory(device) / MOST_FEATURES:
        return
    stages = range(len(config.boundaries) + 1)
    needed = batch * max(evaluation_bytes(config, stage) for stage in stages)
    advice = "give a smaller --batch-size, which does not change the images"
    check_memory(needed, f"A batch of {batch:,} samples", advice, device)


def evaluation_bytes(config: ModelConfig, stage: int) -> int:
    """Bytes by which one more image raises the peak memory of an evaluation in float32."""
    with FakeTensorMode(), torch.no_grad():
        network = build_denoiser(config).network
        one, two = (_peak_bytes(network, config, stage, batch) for batch in (1, 2))
    return two - one


def _peak_bytes(network: StagedUNet, config: ModelConfig, stage: int, batch: int) -> int:
    with _LivingTensors() as living:
        _forward(network, config, stage, batch, "cpu")
    return living.peak


class _LivingTensors(TorchDispatchMode):
    """Counts the bytes of all storages that are made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            weakref.finalize(storage, self.sizes.pop, key, None)
            self.peak = max(self.peak, sum(self.sizes.values()))


def _saved_bytes(
    network: StagedUNet, config: ModelConfig, stage: int, batch: int, dtype: torch.dtype
) -> int:
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        output = _forward(network, config, stage, batch, "cpu")
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())
