"""Model files: weights and, in the metadata, the whole configuration as JSON, in one file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents.space import space_of_model
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.preconditioning import PRECONDITIONINGS, PreconditioningName
from multistage_diffusion.schedule import ScheduleName
from multistage_diffusion.space import LatentConfig, Space
from multistage_diffusion.stages import Stages
from multistage_diffusion.tensorfile import read_tensors, save_tensors

__all__ = ["Model", "ModelConfig", "build_denoiser", "load_model", "save_model"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a denoiser is built from."""

    shape: tuple[int, int, int]
    """Channels, height, width of an image, or of the latents that the network works on."""
    classes: int
    """Number of classes; 0 for an unconditional model."""
    boundaries: tuple[float, ...]
    """Noise levels sigma between the stages."""
    schedule: ScheduleName
    """The density of the noise levels in training."""
    preconditioning: PreconditioningName
    """What the network predicts, and the weight of its loss."""
    sigma_data: float
    """Standard deviation of the data."""
    network: NetworkConfig
    latents: Annotated[LatentConfig | None, Field(exclude_if=lambda latents: latents is None)] = (
        None
    )
    """How images become the values the network works on; None for pixels."""

    @property
    def space(self) -> Space:
        """What turns the values of the network into images."""
        return space_of_model(self.latents)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the images that are drawn."""
        return self.shape if self.latents is None else self.latents.image_shape

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise BadInput(
                f"The setting sigma_data must be positive, not {self.sigma_data}: "
                "do the images differ at all?"
            )


def build_denoiser(config: ModelConfig) -> NetworkDenoiser:
    """A denoiser with new random weights, drawn from torch's global generator.

    Raises:
        BadInput: if the configuration contradicts itself.
    """
    network = StagedUNet(config.shape, config.classes, config.network)
    preconditioning = PRECONDITIONINGS[config.preconditioning](config.sigma_data)
    return NetworkDenoiser(network, preconditioning, Stages(config.boundaries))


@dataclass(frozen=True)
class Model:
    """A trained denoiser, its configuration, and how it was trained."""

    denoiser: NetworkDenoiser
    config: ModelConfig
    images: int
    """Images seen in training."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the run's configuration as JSON: ``training``, ``data`` and ``init``."""


def save_model(
    path: Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    images: int,
    run: Mapping[str, Any],
) -> None:
    """Writes a model file, atomically.

    Args:
        path: the file.
        weights: the state dict of the network.
        config: what the model is built from.
        images: images seen in training.
        run: the rest of the run's configuration as JSON.
    """
    metadata = {"config": {"model": to_json(config), **run}, "images": images}
    save_tensors(path, weights, metadata)


def load_model(path: Path) -> Model:
    """A model from its file, on the CPU and in evaluation mode.

    Raises:
        BadInput: if the file is missing, damaged, of another format, or its weights do not fit
            its configuration.
    """
    tensors, metadata = read_tensors(path)
    run: Any = metadata.get("config")
    model = run.pop("model", None) if isinstance(run, dict) else None
    config = from_json(ModelConfig, model)
    denoiser = build_denoiser(config)
    try:
        denoiser.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadInput(f"The weights in {path} do not fit its configuration.") from error
    images = int(str(metadata["images"]))
    return Model(denoiser.eval(), config, images, run)
