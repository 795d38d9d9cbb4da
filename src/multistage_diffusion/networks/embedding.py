"""The embedding of noise level, class and augmentation that all blocks of a network receive."""

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.layers import linear

__all__ = ["NO_LABEL", "Embedding"]

NO_LABEL = -1
FOURIER_SCALE = 16.0  # standard deviation of random frequencies


class Embedding(nn.Module):
    """Features of the noise label, plus class and augmentation labels, through two linear layers.

    The features are

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
        self.kind = config.embedding
        self.classes = classes
        self.before = config.label_embedding == "before"
        self.frequencies: Tensor
        random = config.embedding == "fourier"
        self.register_buffer("frequencies", self._frequencies(), persistent=random)
        self.label: nn.Linear | None = None
        if classes and self.before:
            self.label = linear(classes, self.channels)
        elif classes:
            self.label = linear(classes, 4 * width, bias=False)
        self.augment: nn.Linear | None = None
        if config.augment_channels:
            self.augment = linear(config.augment_channels, self.channels, bias=False)
        self.layer0 = linear(self.channels, 4 * width)
        self.layer1 = linear(4 * width, 4 * width)

    def forward(
        self, c_noise: Tensor, labels: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Computes the embedding.

        Args:
            c_noise: noise labels, ``[B]``.
            labels: classes, int64 ``[B]``.
            augment: labels of the augmentation, ``[B, augment_channels]``.

        Returns:
            ``[B, 4 * width]``.
        """
        emb = self._sinusoids(c_noise).to(self.layer0.weight.dtype)
        if self.label is not None and self.before:
            emb = emb + self.label(self._one_hot(labels, emb) * math.sqrt(self.classes))
        if self.augment is not None and augment is not None:
            emb = emb + self.augment(augment)
        emb = self.layer1(F.silu(self.layer0(emb)))
        if self.label is not None and not self.before:
            emb = emb + self.label(self._one_hot(labels, emb))
        return F.silu(emb)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the module; frequencies stay float32, since phases need its precision."""
        exact = self.frequencies
        super()._apply(fn, recurse)
        self.frequencies = exact.to(self.frequencies.device)
        return self

    def _frequencies(self) -> Tensor:
        half = (self.channels + 1) // 2
        if self.kind == "fourier":
            return torch.randn(half) * FOURIER_SCALE
        last = max(half - 1, 1) if self.kind == "positional" else half
        return (1 / 10000) ** (torch.arange(half) / last)

    def _sinusoids(self, c_noise: Tensor) -> Tensor:
        turn = 2 * math.pi if self.kind == "fourier" else 1.0
        angles = torch.outer(c_noise, self.frequencies * turn)
        parts = [angles.sin(), angles.cos()]
        if self.kind == "sinusoidal":
            parts.reverse()
        return torch.cat(parts, dim=1)[:, : self.channels]  # an odd width lacks the last one

    def _one_hot(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Labels as ``[B, classes]``, with rows of zeros for no class."""
        if labels is None:
            return like.new_zeros(len(like), self.classes)
        rows = F.one_hot(labels.clamp(min=0), self.classes).to(like.dtype)
        return rows * (labels >= 0)[:, None]
