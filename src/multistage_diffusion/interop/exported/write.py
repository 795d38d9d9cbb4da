"""Writes a model as one file for each stage, and ``model.json`` beside them."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from multistage_diffusion.config import to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import folder_atomically, write_json
from multistage_diffusion.interop.exported.decoding import LARGEST_BATCH, trace_decoding
from multistage_diffusion.interop.exported.path import input_names, size_multiple, trace
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import claim, find_model

__all__ = ["FORMAT", "MANIFEST", "export_onnx", "export_program"]

FORMAT = "multistage-diffusion/exported/1"
MANIFEST = "model.json"
Writer = Callable[[ExportedProgram, Path, str], None]  # a graph, its file, its output's name
LARGEST_FILE = 2**30  # bytes of weights beyond which ONNX keeps them in a second file


def export_onnx(target: Path, out: Path) -> None:
    """Writes ``stage-1.onnx``, ``stage-2.onnx``, ... and ``model.json``.

    The decoder of a latent model's autoencoder becomes ``decode.onnx``.

    Args:
        target: a run or a model file.
        out: a new folder.

    Raises:
        BadInput: if there is no model, the folder is in use, or a package is missing.
    """
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise BadInput(
                f"The export to ONNX needs {name}: pip install 'multistage-diffusion[onnx]'."
            )
    _export(target, out, ".onnx", _write_onnx)


def export_program(target: Path, out: Path) -> None:
    """Writes ``stage-1.pt2``, ``stage-2.pt2``, ... for ``torch.export.load``, and ``model.json``.

    The decoder of a latent model's autoencoder becomes ``decode.pt2``.

    Args:
        target: a run or a model file.
        out: a new folder.

    Raises:
        BadInput: if there is no model or the folder is in use.
    """
    _export(target, out, ".pt2", _write_program)


def _export(target: Path, out: Path, suffix: str, write: Writer) -> None:
    claim(out, "is not an empty folder", folder=True)
    model = load_model(find_model(target))
    files = [f"stage-{stage + 1}{suffix}" for stage in range(len(model.denoiser.stages))]
    with folder_atomically(out) as folder:
        for stage, file in enumerate(files):
            with _quiet():
                write(trace(model, stage), folder / file, "denoised")
        decoding = _write_decoding(model, folder / f"decode{suffix}", write)
        write_json(folder / MANIFEST, _manifest(model, files) | decoding)


def _write_decoding(model: Model, file: Path, write: Writer) -> dict[str, Any]:
    """Writes the decoder of a latent model; returns its entry of the manifest."""
    if model.config.latents is None:
        return {}
    with _quiet():
        write(trace_decoding(model.config), file, "images")
    inputs = {"inputs": ["latents"], "largest_batch": LARGEST_BATCH}
    return {"decoding": {"file": file.name, **inputs, "range": [-1, 1]}}


def _manifest(model: Model, files: list[str]) -> dict[str, Any]:
    """The content of ``model.json``, which describes the files."""
    bounds = [model.denoiser.stages.bounds(stage) for stage in range(len(files))]
    return {
        "format": FORMAT,
        "files": [
            {"file": file, "sigma_from": low, "sigma_below": high if math.isfinite(high) else None}
            for file, (low, high) in zip(files, bounds, strict=True)
        ],
        "inputs": list(input_names(model.config)),
        "size_multiple": size_multiple(model.config),
        "images": model.images,
        "model": to_json(model.config),
    }


def _write_onnx(program: ExportedProgram, file: Path, output: str) -> None:
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    graph: Any = torch.onnx.export(
        program,
        output_names=[output],
        verbose=False,
        custom_translation_table={torch.ops.aten.searchsorted.Tensor: _searchsorted},
    )
    for node in graph.model.graph.all_nodes():
        node.metadata_props.clear()  # lines of our code and paths of this machine
    graph.save(str(file), external_data=weights > LARGEST_FILE)


def _write_program(program: ExportedProgram, file: Path, _output: str) -> None:
    torch.export.save(program, str(file))


def _searchsorted(table: Any, values: Any, **_options: Any) -> Any:
    """How many entries of a sorted table are at most each value, in ONNX, which has no search."""
    import onnxscript

    op: Any = onnxscript.opset18
    columns = op.Unsqueeze(values, op.Constant(value_ints=[-1]))
    smaller = op.Cast(op.LessOrEqual(table, columns), to=7)  # int64
    return op.ReduceSum(smaller, op.Constant(value_ints=[-1]), keepdims=0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the messages of torch's exporter about its own use."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
