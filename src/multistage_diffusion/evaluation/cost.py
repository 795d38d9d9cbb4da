"""What a network costs in each stage: parameters and multiply-accumulates, counted by torch itself."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.config import ModelConfig
from multistage_diffusion.denoiser import NetworkDenoiser, build_denoiser

__all__ = ["StageCost", "stage_costs", "total_parameters"]


@dataclass(frozen=True)
class StageCost:
    """The part of a network that serves one stage."""

    parameters: int
    """Parameters of its encoder and decoder; a shared encoder is counted in every stage."""
    macs: int
    """Multiply-accumulates of matrix products and convolutions for one image, forward."""


def stage_costs(config: ModelConfig) -> list[StageCost]:
    """Cost in each stage, smallest noise first. Nothing is computed or allocated: the network is built on torch's meta device."""
    with torch.device("meta"):
        denoiser = build_denoiser(config)
    return [_cost(denoiser, config, stage) for stage in range(len(denoiser.stages))]


def total_parameters(config: ModelConfig) -> int:
    """Parameters of the whole network."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_denoiser(config).parameters())


def _cost(denoiser: NetworkDenoiser, config: ModelConfig, stage: int) -> StageCost:
    network = denoiser.network
    counts = [int(k == stage) for k in range(len(denoiser.stages))]
    image, label = torch.empty(1, *config.shape, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image, image.new_empty(1), counts, label if config.classes else None)
    encoder = network.encoders[stage if len(network.encoders) > 1 else 0]
    parameters = sum(p.numel() for part in (encoder, network.decoders[stage]) for p in part.parameters())
    return StageCost(parameters, counter.get_total_flops() // 2)
