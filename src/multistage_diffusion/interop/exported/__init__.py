"""A model as one file for each stage, for programs without this package: ONNX or torch.export.

The file of a stage holds the encoder and that stage's decoder as a denoiser, preconditioning
included. A ``model.json`` beside them says which file serves which noise levels.
"""

from multistage_diffusion.interop.exported.read import ExportedDenoiser, load_exported
from multistage_diffusion.interop.exported.write import export_onnx, export_program

__all__ = ["ExportedDenoiser", "export_onnx", "export_program", "load_exported"]
