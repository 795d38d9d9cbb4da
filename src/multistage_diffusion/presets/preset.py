"""What a preset is."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.preconditioning import PreconditioningName
from multistage_diffusion.schedule import ScheduleName, ScheduleSettings
from multistage_diffusion.training.config import TrainingConfig

__all__ = ["DiffusionConfig", "Preset"]


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Settings):
    """What the network predicts, and the noise levels it is trained on."""

    schedule: ScheduleName = "vp"
    """Density of the noise levels in training: vp draws t uniformly, edm draws log sigma from
    N(-1.2, 1.2), flow (flow matching) from N(0, 1), which is a logit-normal t = sigma / (1 +
    sigma)."""
    schedule_settings: ScheduleSettings = ()
    """Parameters of the schedule that differ from its defaults, such as beta_start 0.00085 beta_end
    0.012 for ddpm."""
    preconditioning: PreconditioningName = "vp"
    """What the network predicts: the noise (vp, ddpm), v (ddpm-v), EDM's mixture of noise and
    image, or the velocity of flow matching (flow)."""
    sigma_data: float | None = setting(None, at_least=1e-6, at_most=1e6)
    """Standard deviation of the data, for EDM's preconditioning; measured if not given."""
    conditional: bool = False
    """Train a class-conditional model, if the data has labels."""
    boundaries: tuple[float, ...] = setting((), above=0)
    """Noise levels between the stages of several decoders, if no stages file is given."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model and how to train it, except for the data and its stages."""

    training: TrainingConfig
    diffusion: DiffusionConfig
    network: NetworkConfig
    shape: Annotated[tuple[int, int, int], tyro.conf.Suppress] = (3, 32, 32)
    """Channels, height and width of the images it is meant for; a run takes those of its data."""
