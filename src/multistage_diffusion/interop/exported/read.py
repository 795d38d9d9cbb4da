"""Exported models as denoisers, in onnxruntime or as torch's programs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.config import from_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.interop.exported.write import FORMAT, MANIFEST
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.schedule import as_float64
from multistage_diffusion.stages import Stages

__all__ = ["ExportedDenoiser", "load_exported"]

StageFunction = Callable[[dict[str, Tensor]], Tensor]
"""From the inputs of a stage's file by name to the denoised images."""


class ExportedDenoiser:
    """A denoiser whose stages are exported files.

    Args:
        config: the configuration of the model.
        functions: of the stages, smallest noise first.
        inputs: what they take.
    """

    def __init__(
        self, config: ModelConfig, functions: list[StageFunction], inputs: list[str]
    ) -> None:
        self.config = config
        self.stages = Stages(config.boundaries)
        self.functions = functions
        self.inputs = inputs

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Denoises, each sample with the file of its stage.

        Args:
            x: noisy images, ``[B, C, H, W]``.
            sigma: noise levels, ``[B]`` or a scalar.
            labels: classes, int64 ``[B]``; no class if not given.
            context: ``[B, tokens, context_channels]``, for models that need one.

        Returns:
            ``E[y | x]``, like ``x``.
        """
        level = as_float64(sigma).expand(len(x))
        no_labels = torch.full((len(x),), -1)
        given = {"x": x.float(), "sigma": level.float(), "context": context}
        given["labels"] = no_labels if labels is None else labels
        stage = self.stages.index(level)
        denoised = torch.empty_like(x)
        for number in stage.unique().tolist():
            here = stage == number
            rows = {name: value[here] for name in self.inputs if (value := given[name]) is not None}
            denoised[here] = self.functions[number](rows).to(x.dtype)
        return denoised


def load_exported(folder: Path) -> ExportedDenoiser:
    """The model in a folder from ``export_onnx`` or ``export_program``.

    Raises:
        BadInput: if the folder holds none, or onnxruntime is missing.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{folder} holds no exported model (multistage export makes them).")
    found = from_json(_Manifest, manifest, str(folder / MANIFEST))
    functions = [_load(folder / entry.file) for entry in found.files]
    return ExportedDenoiser(found.model, functions, list(found.inputs))


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file of an exported model."""

    file: str


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    """The fields of ``model.json`` that are read."""

    model: ModelConfig
    files: tuple[_File, ...]
    inputs: tuple[str, ...]


def _load(file: Path) -> StageFunction:
    return _load_onnx(file) if file.suffix == ".onnx" else _load_program(file)


def _load_program(file: Path) -> StageFunction:
    module = torch.export.load(str(file)).module()

    def run(inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return module(**inputs)

    return run


def _load_onnx(file: Path) -> StageFunction:
    try:
        import onnxruntime
    except ImportError as error:
        raise BadInput("ONNX models need onnxruntime: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run
