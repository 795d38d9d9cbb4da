"""The precision of training."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["EMULATED", "PrecisionName", "dtype_of", "is_emulated", "rounding_of"]

PrecisionName = Literal["float32", "tf32", "bf16"]
EMULATED = (
    "this processor has no bf16 units and emulates them: --precision float32 may be several times "
    "faster"
)
X86 = ("x86_64", "AMD64")  # the processors whose bf16 support torch reports


def dtype_of(precision: PrecisionName) -> torch.dtype:
    """The dtype of matrix products and convolutions."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def is_emulated(precision: PrecisionName) -> bool:
    """Whether networks would be computed in bf16 by a processor without units for it."""
    if precision != "bf16" or torch.accelerator.is_available() or platform.machine() not in X86:
        return False
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
