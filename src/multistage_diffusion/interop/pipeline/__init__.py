"""Models as diffusers knows them: a model, a scheduler and a pipeline. Needs the extra diffusers.

The names of these modules stand in the folders that pipelines are saved to; they do not change.
"""

from multistage_diffusion.interop.pipeline.pipeline import MultistagePipeline
from multistage_diffusion.interop.pipeline.scheduler import SolverScheduler
from multistage_diffusion.interop.pipeline.unet import MultistageUNet

__all__ = ["MultistagePipeline", "MultistageUNet", "SolverScheduler"]
