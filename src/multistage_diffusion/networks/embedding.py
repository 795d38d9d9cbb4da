"""The embedding of noise level, class label and augmentation that all blocks of a network
receive.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import linear

__all__ = ["NO_LABEL", "Embedding"]

NO_LABEL = -1
FOURIER_SCALE = 16.0


class Embedding(nn.Module):
    """Waves of the noise label, with label and augmentation, through two linear layers.

    - ``positional``: sines and cosines with frequencies from 1 to 1/10000 (DDPM++);
    - ``fourier``: sines and cosines with random frequencies (NCSN++);
    - ``sinusoidal``: cosines and sines with frequencies from 1 to just above 1/10000 (ADM, latent
      diffusion).

    Args:
        width: channels of the network's top level; the output has four times as many.
        classes: number of classes, 0 for none. The label ``NO_LABEL`` stands for none of them.
        config: the style.
    """

    def __init__(self, width: int, classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.channels = width * config.embedding_mult
        self.kind, self.classes, self.label_dropout = (
            config.embedding,
            classes,
            config.label_dropout,
        )
        self.before = config.label_embedding == "before"
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", self._frequencies(), persistent=config.embedding == "fourier"
        )
        self.label: nn.Linear | None = None
        if classes:
            self.label = (
                linear(classes, self.channels)
                if self.before
                else linear(classes, 4 * width, bias=False)
            )
        self.augment = (
            linear(config.augment_channels, self.channels, bias=False)
            if config.augment_channels
            else None
        )
        self.layer0 = linear(self.channels, 4 * width)
        self.layer1 = linear(4 * width, 4 * width)

    def forward(
        self, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """``c_noise`` and ``labels`` are ``[B]``, ``augment`` ``[B, augment_channels]``; returns
        ``[B, 4 * width]``.
        """
        emb = self._waves(c_noise)
        if self.label is not None and self.before:
            emb = emb + self.label(self._one_hot(labels, emb) * math.sqrt(self.classes))
        if self.augment is not None and augment is not None:
            emb = emb + self.augment(augment)
        emb = self.layer1(F.silu(self.layer0(emb)))
        if self.label is not None and not self.before:
            emb = emb + self.label(self._one_hot(labels, emb))
        return F.silu(emb)

    def _frequencies(self) -> Tensor:
        half = (self.channels + 1) // 2
        if self.kind == "fourier":
            return torch.randn(half) * FOURIER_SCALE
        last = max(half - 1, 1) if self.kind == "positional" else half
        return (1 / 10000) ** (torch.arange(half) / last)

    def _waves(self, c_noise: Tensor) -> Tensor:
        angles = torch.outer(
            c_noise, self.frequencies * (2 * math.pi if self.kind == "fourier" else 1.0)
        )
        waves = (
            [angles.cos(), angles.sin()]
            if self.kind == "sinusoidal"
            else [angles.sin(), angles.cos()]
        )
        return torch.cat(waves, dim=1)[:, : self.channels]  # an odd width lacks the last one

    def _one_hot(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Labels as ``[B, classes]``; rows of zeros for none, and for some of them in training, if
        so configured.
        """
        if labels is None:
            return like.new_zeros(len(like), self.classes)
        if self.training and self.label_dropout:
            dropped = torch.rand(labels.shape, device=labels.device) < self.label_dropout
            labels = torch.where(dropped, NO_LABEL, labels)
        return F.one_hot(labels.clamp(min=0), self.classes).to(like.dtype) * (labels >= 0)[:, None]
