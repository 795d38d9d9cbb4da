"""Extractors from a file: TorchScript (``.pt``, ``.pth``, ``.ts``, ``.torchscript``) or ONNX."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.extractor import Extractor
from multistage_diffusion.files import fingerprint

__all__ = ["extractor_file", "load_torchscript"]

BATCH = 32
CPU = torch.device("cpu")


def extractor_file(path: Path) -> Extractor:
    """An extractor from a file. It is given uint8 images ``[B, C, H, W]`` and returns ``[B, F]``.

    Whatever resizing or scaling it needs is part of the file. An ONNX network may take float32
    instead; it is given the values 0 to 255.

    Raises:
        BadInput: if the file cannot be loaded.
    """
    if not path.is_file():
        raise BadInput(
            f"There is no file {path}: give --extractor an existing .pt, .ts or .onnx file."
        )
    is_onnx = path.suffix.lower() == ".onnx"
    features = _onnx(path) if is_onnx else partial(_scripted, load_torchscript(path))
    return Extractor(path.stem, features, BATCH, identity=fingerprint(path))


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """A TorchScript module in evaluation mode, on the accelerator if there is one.

    Raises:
        BadInput: if the file is none.
    """
    device = default_device()
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"{path} is no TorchScript file: {reason}") from error


def _scripted(module: torch.jit.ScriptModule, images: Tensor) -> Tensor:
    features: Tensor = module(images)
    return features.flatten(1)


def _onnx(path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
    except ImportError as error:
        raise BadInput("ONNX extractors need onnxruntime: pip install onnxruntime.") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base class for its errors
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"{path} is no ONNX network: {reason}") from error
    given = session.get_inputs()[0]
    dtype = torch.uint8 if given.type == "tensor(uint8)" else torch.float32

    def features(images: Tensor) -> Tensor:
        (first, *_) = session.run(None, {given.name: images.to(CPU, dtype).numpy()})
        return torch.from_numpy(first).flatten(1)

    return features
