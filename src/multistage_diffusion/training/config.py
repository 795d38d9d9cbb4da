"""The configuration of a run."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.training.ema.profiles import WIDEST_AVERAGE
from multistage_diffusion.training.precision import PrecisionName

__all__ = ["DataInfo", "POSITIVE", "RunConfig", "TrackerName", "TrainingConfig", "interval"]


TrackerName = Literal["tensorboard", "wandb"]


POSITIVE = (
    "images",
    "batch_size",
    "accumulate",
    "learning_rate",
    "ema_half_life",
    "ema_rampup",
    "record_images",
    "checkpoint_images",
    "snapshot_images",
    "keep_last",
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How weights are found. Lengths are counted in images, so that they do not depend on the batch size."""

    images: int = 1_000_000
    """Length of the run. This may change when a run goes on, as may what is kept, shown and drawn, --compile and --shard."""
    batch_size: int = 64
    """Images in one step, over all processes."""
    accumulate: int = 1
    """Parts into which each process splits its share of a batch, to save memory; the result is the same."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or Adam with decoupled weight decay."""
    learning_rate: float = 5e-4
    """After the warm-up."""
    weight_decay: float = 0.0
    """Of adamw: weights shrink by this times the learning rate in each step."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    warmup_images: int = 10_000
    """The learning rate rises linearly over the first so many images."""
    learning_rates: tuple[float, ...] = ()
    """A rate for each part instead: the encoder (or each of several), then each decoder."""
    warmups: tuple[int, ...] = ()
    """A warm-up for each part instead, from when it begins to learn."""
    freeze: tuple[str, ...] = ()
    """When each part keeps its weights: 50000 for the first so many images, 20000:50000 for an interval, 0 for never."""
    learned_weight: bool = False
    """Learn by how much to divide the loss at each noise level, so that all count alike (EDM2); the report shows it."""
    ema_half_life: int = 50_000
    """Half-life of the averaged weights, in images."""
    ema_rampup: float = 0.05
    """The half-life is at most this fraction of the images seen, so that a short run does not average its random start."""
    ema_clock: Literal["common", "own"] = "own"
    """What half-lives count for a decoder: all images, or those of its own stage alone."""
    posthoc_ema: tuple[float, ...] = ()
    """Keep, besides, averages of these relative widths (0.05 0.1, say), from which multistage ema makes any other."""
    snapshot_images: int = 50_000
    """A snapshot of the averages of --posthoc-ema after every so many images."""
    shares: Literal["natural", "uniform"] | tuple[float, ...] = "natural"
    """Share of each stage in the training images: natural for those of the schedule, uniform for equal ones, or numbers."""
    share_boundaries: tuple[float, ...] = ()
    """Noise levels between which shares are meant, if not the stages': gives a unified network a multi-stage one's density."""
    batches: Literal["mixed", "single-stage"] = "mixed"
    """Mix the stages in every batch, or give each batch to one stage, drawn by the shares (as the paper does)."""
    importance: bool = False
    """Weigh the loss so that other shares than natural ones leave the objective as it is."""
    flip: bool = True
    """Mirror images left-right at random. Turn off for letters and digits."""
    augment: float = 0.0
    """Probability of each geometric augmentation, of which the network is told (EDM's pipe); needs --augment-channels 9."""
    precision: PrecisionName = "float32"
    """bf16 runs the network in bfloat16 with float32 weights; tf32 rounds factors to 10 bits, on GPUs that can."""
    compile: bool = False
    """Compile encoder and decoders, each for itself: minutes at the start, faster steps. A run resumes up to rounding then."""
    shard: bool = False
    """Split weights, moments and averages over the processes (FSDP), where a GPU cannot hold them whole."""
    held_out: float = 0.0
    """Share of the images that is set aside; the loss on it is recorded, and over-fitting said in words."""
    record_images: int = 10_000
    """A line of stats.jsonl after every so many images."""
    checkpoint_images: int = 50_000
    """A checkpoint after every so many images."""
    keep_last: int = 2
    """How many of the latest checkpoints are kept."""
    keep_every: int = 0
    """Keep, besides, the first checkpoint in each interval of so many images; 0 for none."""
    grid_images: int = 0
    """A grid of samples after every so many images, with the weights as they are and averaged; 0 for none."""
    track: tuple[TrackerName, ...] = ()
    """Send records to tensorboard (a folder in the run) or wandb too."""
    seed: int = 0
    """Weights, order of images, levels, noise and dropout are functions of it."""

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"The setting {name} must be positive, not {getattr(self, name)}.")
        for name in (
            "seed",
            "warmup_images",
            "weight_decay",
            "clip_norm",
            "keep_every",
            "grid_images",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(
                    f"The setting {name} must not be negative, not {getattr(self, name)}."
                )
        for name, given in (("learning_rates", self.learning_rates), ("warmups", self.warmups)):
            if any(
                not (0 < value < math.inf or (value == 0 and name == "warmups")) for value in given
            ):
                raise BadInput(
                    f"The setting {name} needs a positive number for each part, not {list(given)}."
                )
        for text in self.freeze:
            interval(text)
        if isinstance(self.shares, tuple) and (
            not self.shares or min(self.shares) <= 0 or not math.isfinite(sum(self.shares))
        ):
            raise BadInput(
                f"The setting shares needs a positive number for each stage, not {list(self.shares)}."
            )
        widths = self.posthoc_ema
        if len(set(widths)) < len(widths) or any(
            not 0 < width <= WIDEST_AVERAGE for width in widths
        ):
            raise BadInput(
                f"The setting posthoc_ema needs different widths between 0 and {WIDEST_AVERAGE:.4f}, not {list(widths)}."
            )
        if self.weight_decay and self.optimizer != "adamw":
            raise BadInput("The setting weight_decay is for the optimizer adamw.")
        if not 0 <= self.held_out < 1:
            raise BadInput(
                f"The setting held_out is a share of the images below 1, not {self.held_out}."
            )
        if not 0 <= self.augment <= 1:
            raise BadInput(f"The setting augment is a probability, not {self.augment}.")


def interval(text: str) -> tuple[int, float]:
    """The images from which and until which a part is frozen: ``50000`` is ``0:50000``, and ``20000:`` has no end.

    Raises:
        BadInput: if the text is no interval.
    """
    try:
        start, stop = ("0", text) if text.isdecimal() else text.split(":")
        begin, end = int(start), int(stop) if stop else math.inf
    except ValueError:
        begin, end = 0, -1
    if not 0 <= begin <= end:
        raise BadInput(
            f"The setting freeze takes numbers of images such as 50000, 20000:50000 or 20000:, not {text!r}."
        )
    return begin, end


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Which images a run was trained on."""

    path: str
    fingerprint: str
    images: int
    reading: dict[str, Any] = field(default_factory=dict)
    """How they were read: the options of ``ReadOptions``; empty where that was not recorded."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole training run."""

    model: ModelConfig
    training: TrainingConfig
    data: DataInfo
    init: str = ""
    """Fingerprint of the model file whose weights it began with."""


def provenance(config: RunConfig) -> dict[str, Any]:
    """All but the model of a run's configuration, as JSON for a model file."""
    return {name: value for name, value in to_json(config).items() if name != "model"}


def run_config(model: Model) -> RunConfig:
    """The configuration of the run that a model comes from.

    Raises:
        BadInput: if the model file does not hold one.
    """
    return from_json(RunConfig, {"model": to_json(model.config), **model.run})
