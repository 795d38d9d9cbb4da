"""A model as the folder of a pipeline."""

from pathlib import Path

from diffusers import ModelMixin

from multistage_diffusion.interop.pipeline.pipeline import MultistagePipeline
from multistage_diffusion.interop.pipeline.scheduler import SolverScheduler
from multistage_diffusion.interop.pipeline.unet import MultistageUNet
from multistage_diffusion.latents import load_autoencoder
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

    Raises:
        BadInput: if the model's autoencoder has changed or is no longer there.
    """
    pipe = MultistagePipeline(MultistageUNet.of(model), SolverScheduler(), _vae(model))
    pipe.save_pretrained(folder)
    folder.joinpath("pipeline.py").write_text(CODE)


def _vae(model: Model) -> ModelMixin | None:
    """The autoencoder of a latent model, if it is one of diffusers' classes."""
    if model.config.latents is None:
        return None
    autoencoder = load_autoencoder(model.config.latents.autoencoder)
    module = getattr(autoencoder, "module", None)
    return module if isinstance(module, ModelMixin) else None
