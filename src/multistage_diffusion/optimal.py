"""The optimal denoiser of a finite data set, in closed form.

For images ``y_1 .. y_N`` the minimiser of the denoising loss is a softmax average of the data
(paper, proposition 1):

    D*(x; sigma) = sum_i w_i y_i,    w = softmax_i(-|x - y_i|^2 / (2 sigma^2)).

That is attention with the data set as keys and values: two matrix products with a softmax between
them. Its logits are differences of large numbers (1e8 at sigma = 0.002), so everything before the
exponential is done in float64. The data is taken in blocks with a running maximum, so memory does
not grow with the data set.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.errors import BadInput
from multistage_diffusion.space import to_unit_range

__all__ = ["OptimalDenoiser", "PairDenoiser"]

BLOCK_BYTES = 64 << 20
LEAST_SIGMA = 1e-100  # at which all weight is on the nearest image, as at 0
LEAST_PAIR_SIGMA = 1e-6  # the same in the form of pairs, whose logits of 0 are rounded
LEAST_LOGIT = -64.0
"""Weights below ``exp(-64)`` are raised to it: they change nothing, and products with denormal
numbers are very slow."""


class OptimalDenoiser:
    """D*(x; sigma) = E[y | x] for y uniform on a set of images.

    It can be used in place of a network denoiser.

    Args:
        images: ``[N, C, H, W]``, floating point, or uint8 (then read as values ``2 v / 255 - 1``).
            They may lie on the disk and are read a block at a time.
        block_bytes: memory for the float64 copy of one block of images and its weights.

    Raises:
        BadInput: if there are no images.
    """

    def __init__(self, images: Tensor | MappedRows, block_bytes: int = BLOCK_BYTES) -> None:
        if len(images) == 0:
            raise BadInput("The optimal denoiser needs at least one image.")
        self.images = images
        self.block_bytes = block_bytes

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoises ``x``, ``[B, C, H, W]``, at the levels ``sigma``, ``[B]`` or a scalar.

        The result has the dtype of ``x``. At sigma 0 it is the nearest image.
        """
        flat = x.flatten(1).to(torch.float64)
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).expand(len(x))[:, None]
        level = level.clamp(min=LEAST_SIGMA)
        total = torch.zeros_like(flat)
        weight = torch.zeros_like(level)
        top = torch.full_like(level, -torch.inf)
        for y in self._blocks(len(x), x.device):
            # -|x - y|^2 / 2 sigma^2 without the term in |x|^2, which the softmax ignores
            logits = torch.addmm((y * y).sum(1) / -2, flat, y.T) / level**2
            higher = torch.maximum(top, logits.amax(1, keepdim=True))
            scale, w = (top - higher).exp(), (logits - higher).exp_()
            total = total * scale + w @ y
            weight = weight * scale + w.sum(1, keepdim=True)
            top = higher
        return (total / weight).to(x.dtype).view_as(x)

    def _blocks(self, batch: int, device: torch.device) -> Iterator[Tensor]:
        """The images as rows in float64, ``[n, C*H*W]``, a block at a time."""
        row_bytes = 8 * (self.images[0].numel() + 2 * batch)
        rows = max(1, self.block_bytes // row_bytes)
        for start in range(0, len(self.images), rows):
            yield to_unit_range(
                self.images[start : start + rows].to(device), torch.float64
            ).flatten(1)


class PairDenoiser:
    """D* at ``x = y + sigma n`` for images y of the data set itself, at many levels at once.

    With ``q_i = |y - y_i|^2 / 2`` and ``r_i = n . (y_i - y)`` the logits are, up to a constant,

        -|x - y_i|^2 / (2 sigma^2)  =  r_i / sigma - q_i / sigma^2,

    so that the two products behind q and r serve all levels. They and the logits are in float64.
    The image y itself has the logit 0, so a weight below ``exp(-MARGIN)`` of the largest one in a
    block is below that share of the whole too: such parts of a block are skipped, which changes D
    by less than ``N exp(-MARGIN)`` of the range of the data (6e-10 for 50,000 images). Weights and
    their products with a block are in float32, with errors of the order of 1e-7 of the range;
    blocks are added up in float64, so that the error does not grow with the data set.

    Where there are several processes (``processes``), each goes through its own part of the data
    set, and the partial sums are combined exactly. All of them must make the same calls.

    Args:
        images: ``[N, C, H, W]``, floating point, or uint8 (then read as values ``2 v / 255 - 1``).
            They may lie on the disk and are read a block at a time.
        block_rows: images taken at a time.
        device: where to compute; it must know float64.
    """

    MARGIN = 32.0

    def __init__(
        self,
        images: Tensor | MappedRows,
        block_rows: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images = images
        self.device = torch.device(device)
        most = 8192 if self.device.type == "cuda" else 2048
        self.block_rows = block_rows or min(
            most, max(1, most * BLOCK_BYTES // (2048 * 8 * images.shape[1:].numel()))
        )

    def __call__(self, indices: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        """Denoises every pair at every level.

        Args:
            indices: which images y are, int64 ``[P]``.
            noise: n, ``[P, C, H, W]``.
            sigmas: noise levels, ``[L]``.

        Returns:
            float32 ``[P, L, C, H, W]``, on the device.
        """
        return torch.stack(list(self.by_level(indices, noise, sigmas)), 1)

    def by_level(self, indices: Tensor, noise: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
        """The same one level after another, ``[P, C, H, W]`` each.

        That needs half of the memory.
        """
        clean, n = self._rows(self.images[indices]), noise.to(self.device, torch.float64).flatten(1)
        levels = [_Average(clean, sigma, self.MARGIN) for sigma in sigmas.tolist()]
        offset, shift = clean.square().sum(1, keepdim=True), (n * clean).sum(1, keepdim=True)
        for y in self._own_blocks():
            q = torch.addmm((y.square().sum(1) + offset) / 2, clean, y.T, alpha=-1)
            r = torch.addmm(-shift, n, y.T)
            data = y.float()
            for level in levels:
                level.add(q, r, data)
        while levels:
            yield levels.pop(0).value().unflatten(1, self.images.shape[1:])

    def _own_blocks(self) -> Iterator[Tensor]:
        """The part of the images of this process as rows, a block at a time."""
        size, parts, part = len(self.images), distributed.world_size(), distributed.rank()
        end = size * (part + 1) // parts
        for start in range(size * part // parts, end, self.block_rows):
            yield self._rows(self.images[start : min(end, start + self.block_rows)])

    def _rows(self, images: Tensor) -> Tensor:
        return to_unit_range(images.to(self.device), torch.float64).flatten(1)


class _Average:
    """A running softmax average of rows of data at one level, for several pairs."""

    def __init__(self, clean: Tensor, sigma: float, margin: float) -> None:
        self.sigma, self.margin = max(sigma, LEAST_PAIR_SIGMA), margin
        self.total, self.weight = torch.zeros_like(clean), clean.new_zeros(len(clean), 1)
        self.top = torch.zeros_like(self.weight)

    def add(self, q: Tensor, r: Tensor, data: Tensor) -> None:
        """Adds a block of data, ``[n, size]``, with its products q and r, ``[pairs, n]``."""
        logits = torch.mul(r, 1 / self.sigma).add_(q, alpha=-1 / self.sigma**2)
        best = logits.amax(1, keepdim=True)
        active = (best > self.top - self.margin)[:, 0].nonzero()[:, 0]
        if len(active) == 0:
            return
        self._raise_top(torch.maximum(self.top, best))
        w = (logits[active] - self.top[active]).float().clamp_(min=LEAST_LOGIT).exp_()
        self.total.index_add_(0, active, (w @ data).double())
        self.weight.index_add_(0, active, w.sum(1, keepdim=True).double())

    def _raise_top(self, top: Tensor) -> None:
        """Expresses what was summed so far in units of a larger weight."""
        if bool((top > self.top).any()):
            scale = (self.top - top).exp()
            self.total *= scale
            self.weight *= scale
        self.top = top

    def value(self) -> Tensor:
        """The average over the images of all processes."""
        self._raise_top(distributed.all_reduce_max(self.top))
        return (
            distributed.all_reduce_sum(self.total) / distributed.all_reduce_sum(self.weight)
        ).float()
