"""A model as the folder of a pipeline."""

from pathlib import Path

from multistage_diffusion.interop.pipeline.pipeline import MultistagePipeline
from multistage_diffusion.interop.pipeline.scheduler import SolverScheduler
from multistage_diffusion.interop.pipeline.unet import MultistageUNet
from multistage_diffusion.model import Model

__all__ = ["write_pipeline"]

CODE = '''"""Lets DiffusionPipeline.from_pretrained find the class, given trust_remote_code."""

from multistage_diffusion.interop.pipeline import MultistagePipeline

__all__ = ["MultistagePipeline"]
'''


def write_pipeline(model: Model, folder: Path) -> None:
    """Writes what ``MultistagePipeline.from_pretrained`` and ``DiffusionPipeline`` read.

    Args:
        model: the model.
        folder: an empty folder.
    """
    pipe = MultistagePipeline(MultistageUNet.of(model), SolverScheduler())
    pipe.save_pretrained(folder)
    folder.joinpath("pipeline.py").write_text(CODE)
