"""The configuration of a run."""

from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from multistage_diffusion.config import Settings, from_json, grouped, setting, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.run import Run
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.batches.config import DrawConfig
from multistage_diffusion.training.distributed.config import ExecutionConfig
from multistage_diffusion.training.ema.config import AveragingConfig
from multistage_diffusion.training.monitoring.config import MonitoringConfig
from multistage_diffusion.training.optimization import OptimizationConfig
from multistage_diffusion.training.precision import PrecisionName
from multistage_diffusion.training.retention import RetentionConfig

__all__ = [
    "DataInfo",
    "RunConfig",
    "TrainingConfig",
    "load_run_config",
    "provenance",
    "read_run_config",
    "reported_stages",
    "run_config",
    "stages_of_records",
]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How the network is trained. Lengths are counted in images, not in steps."""

    images: int = setting(1_000_000, above=0, may_change=True)
    """Length of the run in images. It may change when a run is resumed."""
    batch_size: int = setting(64, above=0)
    """Images in one step, over all processes."""
    learning_rate: float = setting(5e-4, above=0, at_most=1000)
    """Learning rate after the warm-up."""
    precision: PrecisionName = "float32"
    """bf16 runs the network in bfloat16 with float32 weights; tf32 computes float32 products in
    TF32, on GPUs that support it."""
    seed: int = setting(0, at_least=0)
    """Seed of the initial weights, the order of images, noise levels, noise and dropout."""
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    draws: DrawConfig = field(default_factory=DrawConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.execution.shard and self.optimization.optimizer == "muon":
            raise BadInput(
                "The optimizer muon needs whole matrices: train without --shard, or with adamw."
            )


@dataclass(frozen=True, kw_only=True)
class DataInfo(Settings):
    """The images that a run was trained on."""

    path: str = field(metadata={"may_change": True})
    fingerprint: str
    images: int = setting(MISSING, at_least=0)
    reading: dict[str, Any] = field(default_factory=dict, metadata={"may_change": True})
    """How they were read: the options of ``ReadOptions``; empty where that was not recorded."""
    context: Annotated[str, Field(exclude_if=lambda context: not context)] = ""
    """Fingerprint of the file of contexts, if the network attends to them."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole training run."""

    model: ModelConfig
    training: TrainingConfig
    data: DataInfo
    init: str = ""
    """Fingerprint of the model file whose weights the run began with."""
    version: Literal[2] = 2
    """Of the format. Version 1 had no number and no groups of training settings."""


def load_run_config(run: Run) -> RunConfig:
    """The configuration in the folder of a run.

    Raises:
        BadInput: if the file is missing or damaged; names the field.
    """
    return read_run_config(read_json(run.config), str(run.config))


def read_run_config(value: object, where: str = "") -> RunConfig:
    """A run's configuration from parsed JSON of this or an earlier version.

    Args:
        value: the JSON.
        where: the file, for messages.

    Raises:
        BadInput: if it is not the configuration of a run.
    """
    if isinstance(value, dict) and "version" not in value:
        training = value.get("training")
        nested = grouped(TrainingConfig, training) if isinstance(training, dict) else training
        value = {**value, "training": nested}
    return from_json(RunConfig, value, where)


def provenance(config: RunConfig) -> dict[str, Any]:
    """All but the model of a run's configuration, as JSON for a model file."""
    return {name: value for name, value in to_json(config).items() if name != "model"}


def run_config(model: Model) -> RunConfig:
    """The configuration of the run that a model comes from.

    Raises:
        BadInput: if the model file does not hold one.
    """
    return read_run_config({"model": to_json(model.config), **model.run})


def reported_stages(model: Model) -> Stages:
    """The stages by which a model's losses are reported.

    They are its own; those that its training had shares for, if it has a single decoder.
    """
    own = Stages(model.config.boundaries)
    return stages_of_records(own, run_config(model).training) if model.run else own


def stages_of_records(own: Stages, training: TrainingConfig) -> Stages:
    """The stages by which a run's losses are recorded.

    Args:
        own: the network's stages.
        training: how it is trained; of a network with a single decoder it may say for which stages
            there are shares, which are then those of the network it is compared with.
    """
    return Stages(own.boundaries or training.draws.share_boundaries)
