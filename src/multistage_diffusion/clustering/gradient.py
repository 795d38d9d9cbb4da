"""Stages by the agreement of gradients.

After Go et al. 2023, "Addressing Negative Transfer in Diffusion Models", section 4.2.

The distance of two noise levels is minus the cosine of the gradients of the loss at these levels,
with the same images and noises at both, with respect to the parameters that all levels share: all
of a unified network, the encoder of a multistage one. Consecutive stages minimise the sum of the
distances of their levels to the middle one.

Gradients are kept as sketches: entries with random signs are added up modulo ``SKETCH``. Inner
products of sketches are unbiased, with a standard deviation of ``1 / sqrt(SKETCH)``, 0.8 %, of the
product of the norms, and exact for networks with fewer parameters.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multistage_diffusion.clustering.curves import pairs
from multistage_diffusion.clustering.distance import middle_cuts
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.sums import Sums
from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, with_classes_of
from multistage_diffusion.networks import StagedUNet

__all__ = ["Affinity", "add_gradients"]

Floats = NDArray[np.float64]
GROUPS = 16
SKETCH = 16381


def add_gradients(
    model: Model, images: Images, sigmas: Tensor, options: ClusterOptions, sums: Sums, stop: int
) -> Iterator[int]:
    """Adds the gradients of further pairs, a group at a time, until there are ``stop``.

    Yields how many were added.

    Raises:
        BadInput: if the model is for other images, or its levels share no parameters.
    """
    labels, shared = _labels(model, images), _shared(model.denoiser.network)
    if not sums.curves:
        sums.pairs = np.zeros(GROUPS)
        sums.curves["sketch"] = np.zeros((GROUPS, len(sigmas), SKETCH))
    size = -(-options.pairs // GROUPS)
    while sums.count < stop:
        chosen, noise = pairs(images, options.seed, range(sums.count, sums.count + size))
        y, n = images.space.encode(images.pixels[chosen]), noise.float()
        group = sums.count // size % GROUPS
        for level, sigma in enumerate(sigmas):
            loss = model.denoiser.loss(y, sigma.expand(size), n, Conditions(labels).at(chosen))
            sums.curves["sketch"][group, level] += _sketch(
                torch.autograd.grad(loss.sum(), shared)
            ).numpy()
        sums.pairs[group] += size
        yield size


def _labels(model: Model, images: Images) -> Tensor | None:
    config = model.config
    if config.shape != images.shape:
        raise BadInput(
            f"The checkpoint is for images of {list(config.shape)}, the data has "
            f"{list(images.shape)}: give --size, or another --checkpoint."
        )
    if config.classes and images.labels is None:
        raise BadInput(
            "The checkpoint is class-conditional, and the data has no labels: give --labels, or "
            "another --checkpoint."
        )
    return with_classes_of(config, images).labels if config.classes else None


def _shared(network: StagedUNet) -> list[nn.Parameter]:
    """The parameters that every noise level uses."""
    if len(network.encoders) > 1:
        raise BadInput(
            "The checkpoint holds separate networks, which share no parameters: give a unified one."
        )
    part = network if len(network.decoders) == 1 else network.encoders[0]
    return list(part.parameters())


def _sketch(gradient: tuple[Tensor, ...]) -> Tensor:
    """The sums of a gradient's entries at places equal modulo ``SKETCH``, with fixed signs.

    The result is float32 ``[SKETCH]``.
    """
    signs = torch.Generator().manual_seed(0)
    total, place = torch.zeros(SKETCH), 0
    for part in gradient:
        flat = part.flatten().cpu()
        sign = torch.randint(0, 2, flat.shape, generator=signs, dtype=torch.int8) * 2 - 1
        total.index_add_(0, torch.arange(place, place + len(flat)) % SKETCH, flat * sign)
        place += len(flat)
    return total


class Affinity:
    """Cosines between the gradients of noise levels.

    Args:
        sums: gradients of groups of pairs.
    """

    def __init__(self, sums: Sums) -> None:
        rows = sums.curves["sketch"].reshape(-1, SKETCH)
        groups, levels = sums.curves["sketch"].shape[:2]
        self.products = (rows @ rows.T).reshape(groups, levels, groups, levels)

    def cosines(self, weight: Floats) -> Floats:
        """The cosines, ``[levels, levels]``, with each group of pairs counted ``weight`` times."""
        gram = np.einsum("g,gahb,h->ab", weight, self.products, weight, optimize=True)
        norms = np.sqrt(np.diag(gram))
        cosines: Floats = gram / np.outer(norms, norms)
        return cosines

    def cuts(self, weight: Floats, stages: int) -> list[int]:
        """The first level of each stage but the first."""
        return middle_cuts(-self.cosines(weight), stages)
