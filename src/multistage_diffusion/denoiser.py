"""Denoisers ``D(x, sigma) -> E[y | x]`` and how a network becomes one.

A preconditioning wraps the raw network F (Karras et al. 2022, eq. 7):

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma)),

and weights the loss ``weight(sigma) |D(y + sigma n; sigma) - y|^2``. ``NetworkDenoiser`` also owns
the routing: it knows sigma, so it sorts the batch by stage once, before the encoder, and restores
the order once, after the decoders.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.encoder import Features
from multistage_diffusion.preconditioning import Preconditioning, column, matched, weighted_error
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.stages import Stages

__all__ = ["MEMORY_FORMAT", "Denoiser", "NetworkDenoiser", "set_compute_dtype"]

MEMORY_FORMAT = torch.channels_last
"""The memory format of images and weights in which networks run fastest, for all networks, dtypes
and devices measured so far."""


class Denoiser(Protocol):
    """Anything that estimates the clean image: a network, the closed form, guidance."""

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoises.

        Args:
            x: noisy images, ``[B, C, H, W]``.
            sigma: noise levels, ``[B]`` or a scalar.

        Returns:
            An estimate of ``E[y | x]`` with the shape, dtype and device of ``x``.
        """
        ...


class NetworkDenoiser(nn.Module):
    """A network as a denoiser that routes each sample to its own stage.

    It is the only place where dtypes are cast.

    Args:
        network: the raw network.
        preconditioning: its coefficients.
        stages: which decoder serves which noise level.
        dtype: dtype of the network's matrix products and convolutions; weights keep theirs.

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
        parts = max(len(network.decoders), len(network.encoders))
        if parts != len(stages):
            raise BadInput(
                f"{len(stages)} stages need {len(stages)} decoders, the network has {parts}: "
                "give a decoder width for each stage."
            )
        self.network = network
        self.preconditioning = preconditioning
        self.stages = stages
        self.dtype = dtype

    @property
    def weight_dtype(self) -> torch.dtype:
        """The dtype of the weights: float32, unless the whole model was moved to another one."""
        return next(self.network.parameters()).dtype

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        conditions: Conditions = NO_CONDITIONS,
        *,
        force_stages: Collection[int] = (),
    ) -> Tensor:
        """Denoises.

        Args:
            x: noisy images, ``[B, C, H, W]``, any floating dtype.
            sigma: noise levels, ``[B]`` or a scalar.
            conditions: labels and context of the B samples.
            force_stages: stages whose decoders are evaluated even without samples (sharding).

        Returns:
            An estimate of ``E[y | x]`` with the shape, dtype and device of ``x``.
        """
        level = as_float64(sigma).expand(len(x))
        if len(self.stages) == 1:  # a graph that can be traced as a whole
            return self._denoise(x, level, [len(x)], conditions, force_stages)
        stage = self.stages.index(level)
        counts = stage.bincount(minlength=len(self.stages)).tolist()
        if max(counts) == len(x):  # one stage: nothing to sort
            return self._denoise(x, level, counts, conditions, force_stages)
        order = stage.argsort(stable=True)
        here = order.to(x.device, non_blocking=x.is_cuda)
        routed = self._denoise(x[here], level[order], counts, conditions.at(here), force_stages)
        return torch.empty_like(routed).index_copy(0, here, routed)

    def with_features(
        self,
        x: Tensor,
        sigma: float,
        conditions: Conditions = NO_CONDITIONS,
        features: Features | None = None,
    ) -> tuple[Tensor, Features]:
        """Denoises at one noise level, with the encoder's features of an earlier call or new ones.

        Args:
            x: noisy images, ``[B, C, H, W]``.
            sigma: their noise level.
            conditions: labels and context of the B samples.
            features: of an earlier call for the same samples in the same stage; all but the stem's
                are taken over.

        Returns:
            An estimate of ``E[y | x]`` like ``x``, and the features that it was made from.
        """
        p, level = self.preconditioning, as_float64(sigma).expand(len(x))
        stage, network = int(self.stages.index(level[:1])), self.network
        encoder: Any = network.encoder(stage)
        inputs = self._inputs(x, level)
        with self._autocast(x):
            if features is None:
                features = encoder(*inputs, conditions)
            else:
                features = encoder.renew(features, *inputs, conditions)
            raw = network.decoder(stage)(features)
        return column(p.c_skip(level), x) * x + column(p.c_out(level), x) * raw.to(x), features

    def loss(
        self,
        y: Tensor,
        sigma: Tensor,
        noise: Tensor,
        conditions: Conditions = NO_CONDITIONS,
        *,
        force_stages: Collection[int] = (),
    ) -> Tensor:
        """The weighted denoising loss of each sample, averaged over its pixels.

        Args:
            y: clean images, ``[B, C, H, W]``.
            sigma: noise levels, ``[B]``.
            noise: unit Gaussian noise, the shape of ``y``.
            conditions: labels and context of the B samples.
            force_stages: stages whose decoders are evaluated even without samples (sharding).

        Returns:
            The losses, ``[B]``.
        """
        noisy = y + column(sigma, y) * noise
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
        """Denoises a batch that is sorted by stage."""
        p = self.preconditioning
        inputs = self._inputs(x, level)
        with self._autocast(x):
            raw = self.network(*inputs, counts, conditions, force_stages=force_stages)
        c_skip = column(p.c_skip(level), x)
        c_out = column(p.c_out(level), x)
        return c_skip * x + c_out * raw.to(x.dtype)

    def _autocast(self, x: Tensor) -> AbstractContextManager[Any]:
        """Computes in ``self.dtype``; float32 leaves an autocast around the call as it is."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(x.device.type, self.dtype)

    def _inputs(self, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled images and the noise labels that the network receives."""
        p, image = self.preconditioning, x.to(torch.float32)
        scaled = (column(p.c_in(level), image) * image).to(self.weight_dtype)
        return scaled, matched(p.c_noise(level), image)


def set_compute_dtype(denoiser: NetworkDenoiser, dtype: torch.dtype) -> NetworkDenoiser:
    """Sets the dtype of computations and stores weights in ``MEMORY_FORMAT``.

    The values and the dtype of the weights do not change.

    Returns:
        The denoiser itself.
    """
    denoiser.dtype = dtype
    for parameter in denoiser.parameters():
        if parameter.ndim == 4:  # a convolution
            parameter.data = parameter.data.contiguous(memory_format=MEMORY_FORMAT)
    return denoiser
