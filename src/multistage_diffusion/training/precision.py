"""The precision of training."""

from typing import Literal

import torch

__all__ = ["PrecisionName", "dtype_of", "set_precision"]

PrecisionName = Literal["float32", "tf32", "bf16"]


def dtype_of(precision: PrecisionName) -> torch.dtype:
    """The dtype of matrix products and convolutions."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def set_precision(precision: PrecisionName) -> None:
    """Sets whether float32 products may round their factors to TF32 on a GPU."""
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
