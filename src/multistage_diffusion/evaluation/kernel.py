"""Kernel distance between two sets of features (Binkowski et al. 2018).

It is the KID where the features come from Inception.
"""

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import Estimate, with_deviation

__all__ = ["kernel_distance"]

BLOCK = 2048


def kernel_distance(generated: Tensor, real: Tensor) -> Estimate:
    """Squared maximum mean discrepancy with the kernel ``(x.y / F + 1)^3``, unbiased.

    All pairs are used instead of random subsets, so the value has no randomness of its own. The
    interval is that of a U-statistic, from the variances of its projections on single images
    (Serfling 1980, section 5.5), generated and real.

    Args:
        generated, real: features ``[N, F]`` and ``[M, F]``.

    Raises:
        BadInput: if there are fewer than two images of either kind.
    """
    if min(len(generated), len(real)) < 2:
        raise BadInput("The kernel distance needs at least 2 images of each kind.")
    across = _kernel_means(generated, real), _kernel_means(real, generated)
    first = _means_without_self(generated) - across[0]
    second = _means_without_self(real) - across[1]
    variance = 4 * first.var() / len(first) + 4 * second.var() / len(second)
    return with_deviation(float(first.mean() + second.mean()), float(variance.sqrt()))


def _kernel_means(rows: Tensor, columns: Tensor) -> Tensor:
    """Mean of the kernel of each row with all columns, float64 ``[len(rows)]``."""
    other = columns.double()
    return torch.cat([_kernel(block.double(), other).mean(1) for block in rows.split(BLOCK)])


def _means_without_self(rows: Tensor) -> Tensor:
    """Mean of the kernel of each row with all others."""
    own = (rows.double().square().sum(1) / rows.shape[1] + 1) ** 3
    count = len(rows)
    return (_kernel_means(rows, rows) * count - own) / (count - 1)


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.T / first.shape[1] + 1) ** 3
