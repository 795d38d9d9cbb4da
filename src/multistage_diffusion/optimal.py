"""The optimal denoiser of a finite data set, in closed form.

For images ``y_1 .. y_N`` the minimiser of the denoising loss is a softmax average of the data (paper, proposition 1):

    D*(x; sigma) = sum_i w_i y_i,    w = softmax_i(-|x - y_i|^2 / (2 sigma^2)).

That is attention with the data set as keys and values: two matrix products with a softmax between them. Its logits are
differences of large numbers (1e8 at sigma = 0.002), so everything before the exponential is done in float64. The data is
taken in blocks with a running maximum, so memory does not grow with the data set.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["OptimalDenoiser"]


class OptimalDenoiser:
    """D*(x; sigma) = E[y | x] for y uniform on a set of images. It has the type of a network denoiser.

    Args:
        images: ``[N, C, H, W]``, floating point, or uint8 (then read as values ``2 v / 255 - 1``).
        block_bytes: memory for the float64 copy of one block of images and its weights.

    Raises:
        BadInput: if there are no images.
    """

    def __init__(self, images: Tensor, block_bytes: int = 64 << 20) -> None:
        if len(images) == 0:
            raise BadInput("The optimal denoiser needs at least one image.")
        self.images = images
        self.block_bytes = block_bytes

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Denoises ``x`` of shape ``[B, C, H, W]`` at the levels ``sigma``, ``[B]`` or a scalar; the dtype of ``x``."""
        flat = x.flatten(1).to(torch.float64)
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).expand(len(x))[:, None]
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
        for block in self.images.split(max(1, self.block_bytes // row_bytes)):
            rows = block.flatten(1).to(device=device, dtype=torch.float64)
            yield rows.mul_(2 / 255).sub_(1) if block.dtype == torch.uint8 else rows
