"""The precision of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["PrecisionName", "dtype_of", "rounding_of"]

PrecisionName = Literal["float32", "tf32", "bf16"]


def dtype_of(precision: PrecisionName) -> torch.dtype:
    """The dtype of matrix products and convolutions."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextmanager
def rounding_of(precision: PrecisionName) -> Iterator[None]:
    """Inside, float32 products round their factors to TF32 on a GPU unless precision is float32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    _set_rounding("highest" if precision == "float32" else "high", precision != "float32")
    try:
        yield
    finally:
        _set_rounding(*before)


def _set_rounding(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
