"""Denoisers ``D(x, sigma) -> E[y | x]`` and how a network becomes one.

A preconditioning wraps the raw network F (Karras et al. 2022, eq. 7):

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma)),

and weights the loss ``weight(sigma) |D(y + sigma n; sigma) - y|^2``. ``NetworkDenoiser`` also owns the routing: it knows
sigma, so it sorts the batch by stage once, before the encoder, and restores the order once, after the decoders.
"""

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor, nn

from multistage_diffusion.conditions import UNCONDITIONAL, Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.unet import StagedUNet
from multistage_diffusion.preconditioning import Preconditioning, to_device_of, weighted_error
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.stages import Stages

__all__ = ["Denoiser", "NARROW", "NetworkDenoiser", "fastest_layout", "lay_out"]


class Denoiser(Protocol):
    """Anything that estimates the clean image: a network, the closed form, guidance around either."""

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """``x`` is ``[B, C, H, W]``, ``sigma`` ``[B]`` or a scalar; returns an estimate of ``E[y | x]`` like ``x``."""
        ...


NARROW = 16  # channels of a group that torch reads at once


class NetworkDenoiser(nn.Module):
    """A network as a denoiser that routes each sample to its own stage. The only place where dtypes are cast.

    Args:
        network: the raw network.
        preconditioning: its coefficients.
        stages: which decoder serves which noise level.
        dtype: number format of the network's matrix products and convolutions; weights stay as they are.

    Raises:
        BadInput: if the network has another number of decoders than there are stages.
    """

    def __init__(
        self,
        network: StagedUNet,
        preconditioning: Preconditioning,
        stages: Stages,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(network.decoders) != len(stages):
            raise BadInput(
                f"{len(stages)} stages need {len(stages)} decoders, the network has {len(network.decoders)}."
            )
        self.network = network
        self.preconditioning = preconditioning
        self.stages = stages
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        conditions: Conditions = UNCONDITIONAL,
        *,
        force_stages: Collection[int] = (),
    ) -> Tensor:
        """Denoises.

        Args:
            x: noisy images ``[B, C, H, W]``, any floating dtype; the result has the same.
            sigma: noise levels, ``[B]`` or a scalar.
            conditions: labels and context of the B samples.
            force_stages: stages whose decoders are evaluated even without samples (sharding).
        """
        level = as_float64(sigma).expand(len(x))
        stage = self.stages.index(level)
        counts = stage.bincount(minlength=len(self.stages)).tolist()
        if max(counts) == len(x):  # one stage: nothing to sort
            return self._denoise(x, level, counts, conditions, force_stages)
        order = stage.argsort(stable=True)
        here = to_device_of(order, x)
        routed = self._denoise(x[here], level[order], counts, conditions.at(here), force_stages)
        return torch.empty_like(routed).index_copy(0, here, routed)

    def loss(
        self,
        y: Tensor,
        sigma: Tensor,
        noise: Tensor,
        conditions: Conditions = UNCONDITIONAL,
        *,
        force_stages: Collection[int] = (),
    ) -> Tensor:
        """The weighted denoising loss of each sample, averaged over its pixels: ``[B]``.

        Args:
            y: clean images ``[B, C, H, W]``.
            sigma: noise levels ``[B]``.
            noise: unit Gaussian noise, the shape of ``y``.
            conditions: labels and context of the B samples.
            force_stages: stages whose decoders are evaluated even without samples (sharding).
        """
        noisy = y + _like(sigma, y) * noise
        denoised = self(noisy, sigma, conditions, force_stages=force_stages)
        return weighted_error(denoised, y, sigma, self.preconditioning)

    def _denoise(
        self,
        x: Tensor,
        level: Tensor,
        counts: list[int],
        conditions: Conditions,
        force_stages: Collection[int],
    ) -> Tensor:
        p = self.preconditioning
        image = x.to(torch.float32)
        c_noise = to_device_of(p.c_noise(level).to(torch.float32), x)
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            scaled = _like(p.c_in(level), image) * image
            raw = self.network(scaled, c_noise, counts, conditions, force_stages=force_stages)
        skip, out = _like(p.c_skip(level), x), _like(p.c_out(level), x)
        return skip * x + out * raw.to(x.dtype)


def _like(coefficient: Tensor, x: Tensor) -> Tensor:
    """A coefficient per sample, ready to multiply images of the device and dtype of ``x``."""
    return to_device_of(coefficient.to(x.dtype), x)[:, None, None, None]


def fastest_layout(denoiser: NetworkDenoiser) -> torch.memory_format:
    """How images and weights should lie in memory: by pixel (channels-last), but for narrow networks in bf16 on a processor.

    Torch's group normalisation of bf16 images by pixel takes ten times as long on a processor where groups have few channels.
    """
    widths = [
        norm.num_channels // norm.num_groups
        for norm in denoiser.modules()
        if isinstance(norm, nn.GroupNorm)
    ]
    on_processor = next(denoiser.parameters()).device.type == "cpu"
    slow = on_processor and denoiser.dtype == torch.bfloat16 and max(widths) < NARROW
    return torch.contiguous_format if slow else torch.channels_last


def lay_out(denoiser: NetworkDenoiser, dtype: torch.dtype) -> NetworkDenoiser:
    """Sets the number format and lays out the weights of convolutions as is fastest in it; their values stay."""
    denoiser.dtype = dtype
    layout = fastest_layout(denoiser)
    for parameter in denoiser.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return denoiser
