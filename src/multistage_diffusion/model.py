"""Model files: weights and, in the metadata, the whole configuration as JSON, in one file."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from multistage_diffusion.config import Settings, from_json, setting, to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents.space import space_of_model
from multistage_diffusion.memory import check_memory, free_memory
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.preconditioning import PRECONDITIONINGS, PreconditioningName
from multistage_diffusion.schedule import Schedule, ScheduleName, ScheduleSettings, make_schedule
from multistage_diffusion.space import LatentConfig, Space
from multistage_diffusion.stages import Stages
from multistage_diffusion.tensorfile import read_tensors, save_tensors

__all__ = [
    "MOST_CLASSES",
    "Model",
    "ModelConfig",
    "build_denoiser",
    "load_model",
    "model_metadata",
    "named_classes",
    "save_model",
    "with_classes_of",
]


MOST_CLASSES = 10_000_000
FLOAT32 = 4  # bytes
MOST_MATRICES = 100  # of the channels squared, in a block


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """What a denoiser is built from."""

    shape: tuple[int, int, int] = setting(MISSING, at_least=1, at_most=65_536)
    """Channels, height, width of an image, or of the latents that the network works on."""
    classes: int = setting(MISSING, at_least=0, at_most=MOST_CLASSES)
    """Number of classes; 0 for an unconditional model."""
    class_names: tuple[str, ...] = field(default=(), metadata={"may_change": True})
    """Their names; empty where they were not recorded."""
    class_numbers: tuple[int, ...] = field(default=(), metadata={"may_change": True})
    """The number that each has in the data; empty if they count from 0."""
    boundaries: tuple[float, ...] = setting(MISSING, above=0)
    """Noise levels sigma between the stages."""
    schedule: ScheduleName
    """The density of the noise levels in training."""
    schedule_settings: ScheduleSettings = ()
    """Its parameters that differ from the defaults."""
    preconditioning: PreconditioningName
    """What the network predicts, and the weight of its loss."""
    sigma_data: float = setting(MISSING, at_least=0)
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
        super().__post_init__()
        Stages(self.boundaries)
        if not 0 < self.sigma_data < math.inf:
            raise BadInput(
                f"The setting sigma_data must be positive, not {self.sigma_data}: "
                "do the images differ at all?"
            )
        make_schedule(self.schedule, self.schedule_settings)  # raises an error for unknown ones
        for name in ("class_names", "class_numbers"):
            count = len(getattr(self, name))
            if count not in (0, self.classes):
                raise BadInput(
                    f"The setting {name} has {count} entries, and there are {self.classes} classes."
                )

    @property
    def stages(self) -> Stages:
        """The stages of its decoders."""
        return Stages(self.boundaries)

    @property
    def density(self) -> Schedule:
        """The schedule with its settings."""
        return make_schedule(self.schedule, self.schedule_settings)


def named_classes(config: ModelConfig) -> list[tuple[int, str]]:
    """The number and the name of each class of a model, in the order of the network."""
    numbers = config.class_numbers or tuple(range(config.classes))
    names = config.class_names or tuple(map(str, numbers))
    return list(zip(numbers, names, strict=False))[: config.classes]


def with_classes_of(config: ModelConfig, images: Images) -> Images:
    """Images whose labels count the classes as a model does.

    Data of which some classes have no images count the others differently.

    Raises:
        BadInput: if a class of the images is none of the model's.
    """
    if not config.classes or images.labels is None:
        return images
    known = named_classes(config)
    places = {name: place for place, (_, name) in enumerate(known)}
    numbers = images.class_numbers or range(len(images.classes))
    named = images.classes if config.class_names else tuple(map(str, numbers))
    unknown = [name for name in named if name not in places]
    if unknown:
        raise BadInput(
            f"{images.source} has the class {unknown[0]}, which the model does not know; it has "
            f"{', '.join(list(places)[:10])}."
        )
    order = torch.tensor([places[name] for name in named])
    return replace(images, labels=order[images.labels])


def build_denoiser(config: ModelConfig) -> NetworkDenoiser:
    """A denoiser with new random weights, drawn from torch's global generator.

    Raises:
        BadInput: if the configuration contradicts itself, or its weights need more memory than
            there is.
    """
    _check_size(config)
    network = StagedUNet(config.shape, config.classes, config.network)
    preconditioning = PRECONDITIONINGS[config.preconditioning](config.sigma_data, config.density)
    return NetworkDenoiser(network, preconditioning, Stages(config.boundaries))


def _check_size(config: ModelConfig) -> None:
    """Raises BadInput if the weights need more memory than there is.

    They are counted where an upper bound of their number does not fit.
    """
    network = config.network
    widths = (*network.encoder_widths, *network.decoder_widths)
    widest = max(widths) * max(network.channel_mult)
    blocks = len(widths) * len(network.channel_mult) * (network.blocks + 1)
    largest = max(network.embedding_mult, network.transformer_depth, 1)
    bound = FLOAT32 * (MOST_MATRICES * largest * blocks * widest + config.classes) * widest
    if not _takes_memory() or bound < free_memory():
        return
    needed = FLOAT32 * sum(math.prod(shape) for shape in _shapes(config).values())
    check_memory(needed, "The network", "give it smaller widths or fewer blocks")


def _takes_memory() -> bool:
    """Whether tensors that are made now have values: neither on meta nor fake."""
    tensor = torch.empty(0)
    return tensor.device.type != "meta" and not isinstance(tensor, FakeTensor)


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shapes of a network's weights, without making them."""
    with torch.device("meta"):
        state = StagedUNet(config.shape, config.classes, config.network).state_dict()
    return {name: tensor.shape for name, tensor in state.items()}


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
    save_tensors(path, weights, model_metadata(config, images, run))


def model_metadata(config: ModelConfig, images: int, run: Mapping[str, Any]) -> dict[str, object]:
    """The metadata of a model file; see ``save_model``."""
    return {"config": {"model": to_json(config), **run}, "images": images}


def load_model(path: Path) -> Model:
    """A model from its file, on the CPU and in evaluation mode.

    Raises:
        BadInput: if the file is missing, damaged, of another format, or its weights do not fit
            its configuration or are no numbers.
    """
    tensors, metadata = read_tensors(path)
    found = from_json(_Metadata, metadata, str(path))
    run = dict(found.config)
    config = from_json(ModelConfig, run.pop("model", None), f"{path}, config.model")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    real = all(tensor.is_floating_point() for tensor in tensors.values())
    if shapes != _shapes(config) or not real:
        raise BadInput(
            f"The weights in {path} do not fit its configuration: the file was edited or damaged; "
            "take a checkpoint or an earlier copy."
        )
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise BadInput(
            f"{path} holds NaN or infinity in {broken[0]}: its training diverged, or the file is "
            "damaged; take an earlier checkpoint."
        )
    denoiser = build_denoiser(config)
    denoiser.network.load_state_dict(tensors)
    return Model(denoiser.eval(), config, found.images, run)


@dataclass(frozen=True, kw_only=True)
class _Metadata(Settings):
    """The metadata of a model file."""

    config: dict[str, Any]
    """The run's configuration, with that of the model under ``model``."""
    images: int = setting(MISSING, at_least=0)
