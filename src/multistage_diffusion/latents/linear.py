"""Autoencoders without training: linear patches, and none at all.

Linear patches are the principal components of all patches of ``factor`` x ``factor`` pixels: the
linear autoencoder with the least squared error (Pearson 1901). With as many channels as a patch has
values nothing is cut off and the inverse is exact. It is the baseline that a trained autoencoder
must beat at the same number of values.
"""

import base64
import hashlib
import re
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents.autoencoder import Autoencoder, Posterior
from multistage_diffusion.space import PIXELS, AutoencoderInfo

__all__ = ["IDENTITY", "Identity", "LinearPatches", "is_linear"]

IDENTITY = "identity"
NAME = re.compile(r"pca-f(\d+)c(\d+)")


def is_linear(name: str) -> bool:
    """Whether a name is that of linear patches, such as ``pca-f2c6``."""
    return NAME.fullmatch(name) is not None


@final
class Identity(Autoencoder):
    """Pixels as latents.

    Args:
        channels: of the images.
    """

    lossless = True

    def __init__(self, channels: int) -> None:
        self.image_channels = channels
        self.info = AutoencoderInfo(
            name=IDENTITY, fingerprint=f"{IDENTITY}-{channels}", factor=1, channels=channels
        )

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(images, None)

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def to(self, device: torch.device | str) -> "Identity":  # noqa: ARG002  (has no weights)
        return self


@final
class LinearPatches(Autoencoder):
    """Coordinates of patches along orthonormal axes, around their mean.

    Args:
        name: ``pca-f<factor>c<channels>``.
        basis: the axes as rows, ``[channels, C * factor^2]``.
        middle: the mean patch, ``[C * factor^2]``.
    """

    def __init__(self, name: str, basis: Tensor, middle: Tensor) -> None:
        factor, channels = _numbers(name)
        self.basis = basis
        self.middle = middle
        self.image_channels = basis.shape[1] // factor**2
        self.lossless = basis.shape[0] == basis.shape[1]
        content = torch.cat([middle[None], basis]).cpu().numpy().astype("<f4").tobytes()
        digest = hashlib.sha256(name.encode() + content).hexdigest()[:16]
        self.info = AutoencoderInfo(
            name=name,
            fingerprint=digest,
            factor=factor,
            channels=channels,
            weights=base64.b64encode(content).decode(),
        )

    @staticmethod
    def fit(name: str, images: Images) -> "LinearPatches":
        """The principal components of the patches of images, most variance first.

        Raises:
            BadInput: if a patch has fewer values than there are to be channels, or the sides of
                the images are no multiples of the factor.
        """
        factor, channels = _numbers(name)
        size = images.shape[0] * factor**2
        if not 1 <= channels <= size:
            raise BadInput(
                f"{name}: a patch of {factor}x{factor} has {size} values, so that there can be 1 "
                f"to {size} channels."
            )
        middle, covariance = _moments(images, factor)
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1).T[:channels]
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        basis = (axes * largest.sign()).float()  # a sign that does not depend on the machine
        fitted = LinearPatches(name, basis, middle.float())
        fitted.check(images.shape)
        return fitted

    @staticmethod
    def stored(info: AutoencoderInfo) -> "LinearPatches":
        """Linear patches from what identifies them."""
        content = np.frombuffer(base64.b64decode(info.weights), "<f4").astype(np.float32)
        both = torch.from_numpy(content).view(1 + info.channels, -1)
        return LinearPatches(info.name, both[1:], both[0])

    def encode(self, images: Tensor) -> Posterior:
        patches = F.pixel_unshuffle(images, self.info.factor).movedim(1, -1)
        return Posterior(((patches - self.middle) @ self.basis.T).movedim(-1, 1), None)

    def decode(self, latents: Tensor) -> Tensor:
        patches = latents.movedim(1, -1) @ self.basis + self.middle
        return F.pixel_shuffle(patches.movedim(-1, 1), self.info.factor)

    def to(self, device: torch.device | str) -> "LinearPatches":
        self.basis = self.basis.to(device)
        self.middle = self.middle.to(device)
        return self


def _numbers(name: str) -> tuple[int, int]:
    """Factor and channels in a name."""
    found = NAME.fullmatch(name)
    assert found is not None
    factor, channels = int(found[1]), int(found[2])
    if not factor:
        raise BadInput(f"{name}: the factor must be at least 1.")
    return factor, channels


def _moments(images: Images, factor: int) -> tuple[Tensor, Tensor]:
    """Mean ``[n]`` and covariance ``[n, n]`` of all patches, in float64."""
    height, width = images.shape[1:]
    if height % factor or width % factor:
        raise BadInput(f"{height}x{width} are no multiples of {factor}; give --size.")
    size = images.shape[0] * factor**2
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    for block in images.blocks():
        for part in block.split(1024):
            patches = F.pixel_unshuffle(PIXELS.encode(part), factor)
            rows = patches.movedim(1, -1).flatten(0, 2).double()
            total += rows.sum(0)
            products += rows.T @ rows
            count += len(rows)
    middle = total / count
    return middle, products / count - middle[:, None] * middle
