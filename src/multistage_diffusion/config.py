"""What a model and a run are made of, as plain frozen data.

A run is reproduced by its ``RunConfig``; a checkpoint carries one as JSON. Nothing here imports torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from multistage_diffusion.errors import BadInput

__all__ = [
    "WIDEST_AVERAGE",
    "DataInfo",
    "ModelConfig",
    "NetworkConfig",
    "RunConfig",
    "TrainingConfig",
    "from_json",
    "interval",
    "to_json",
]

ScheduleName = Literal["vp", "edm", "ve", "ddpm"]
PreconditioningName = Literal["edm", "vp", "ddpm"]
PrecisionName = Literal["float32", "tf32", "bf16"]
TrackerName = Literal["tensorboard", "wandb"]
Pyramid = Literal["none", "skip", "residual"]
WIDEST_AVERAGE = 12**-0.5  # standard deviation of the uniform density on [0, 1]: the mean over all images
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
class NetworkConfig:
    """A U-Net of encoders and decoders. One of each: unified. One encoder, several decoders: multistage. Pairs: separate."""

    encoder_widths: tuple[int, ...] = (32,)
    """Channels of each encoder's top level: one shared encoder, or one for each decoder."""
    decoder_widths: tuple[int, ...] = (48, 32, 16)
    """Channels of each decoder's top level, one decoder for each stage, smallest noise first."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Channels of each level as multiples of the width; each further level halves the resolution."""
    blocks: int = 2
    """Residual blocks in each level of an encoder; a decoder has one more."""
    attention_resolutions: tuple[int, ...] = ()
    """Image sizes (the longer side, in pixels) at which blocks have self-attention."""
    dropout: float = 0.0
    """Dropout probability inside the residual blocks."""
    groups: int = 32
    """Largest number of groups in a group normalisation."""
    group_channels: int = 4
    """Fewest channels in a group."""
    norm_eps: float = 1e-6
    """Added to the variance in a group normalisation."""
    bottom: Literal["encoder", "decoder"] = "decoder"
    """Who has the two blocks at the lowest resolution: DPM-Solver and latent diffusion share them, EDM does not."""
    decoder_attention: Literal["last", "each", "first-decoder"] = "last"
    """Which blocks of a decoder's level have attention: the last one, each, or each of the first decoder (the paper's LDM)."""
    head_channels: int = 0
    """Channels of an attention head; 0 for a fixed number of heads."""
    heads: int = 1
    """Attention heads where their channels are not given."""
    residual_scale: bool = True
    """Scale residual sums by sqrt(1/2)."""
    adaptive_scale: bool = False
    """Let the embedding scale and shift the features (ADM) instead of being added."""
    project_resampled: bool = True
    """Put a 1x1 convolution into the skip of every resampling block."""
    resampling: Literal["block", "conv"] = "block"
    """Resample in residual blocks, or by convolutions between them (latent diffusion)."""
    resample_filter: tuple[int, ...] = (1, 1)
    """Filter of resampling: 1 1 is a box, 1 3 3 1 the smoother one of NCSN++."""
    input_pyramid: Pyramid = "none"
    """Feed the image into every level of the encoder."""
    output_pyramid: Pyramid = "none"
    """Build the output from every level of the decoder."""
    embedding: Literal["positional", "fourier", "sinusoidal"] = "positional"
    """Waves of the noise level: DDPM++, NCSN++, or ADM and latent diffusion."""
    embedding_mult: int = 1
    """Number of waves as a multiple of the encoder's width."""
    label_embedding: Literal["before", "after"] = "before"
    """Add the class before the layers of the embedding (EDM) or after them (ADM, latent diffusion)."""
    label_dropout: float = 0.0
    """Share of the training images whose class is hidden, for classifier-free guidance."""
    augment_channels: int = 0
    """Labels of the augmentation pipe: 9 if there is one."""
    context_channels: int = 0
    """Channels of a context that is attended to, such as text; 0 for none."""
    transformer_depth: int = 1
    """Transformer layers where there is a context."""

    def __post_init__(self) -> None:
        counts = {"encoder_widths": self.encoder_widths, "decoder_widths": self.decoder_widths, "channel_mult": self.channel_mult}
        for name, values in {**counts, "blocks": (self.blocks,), "groups": (self.groups,)}.items():
            if not values or min(values) < 1:
                raise BadInput(f"The setting {name} needs numbers of at least 1, not {list(values)}.")
        for name, value in (("dropout", self.dropout), ("label_dropout", self.label_dropout)):
            if not 0 <= value < 1:
                raise BadInput(f"The setting {name} must be at least 0 and less than 1, not {value}.")
        if len(self.resample_filter) % 2 or sum(self.resample_filter) == 0:
            raise BadInput(f"The setting resample_filter needs an even number of taps, not {list(self.resample_filter)}.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that is needed to build a denoiser and give it weights."""

    shape: tuple[int, int, int]
    """Channels, height, width of an image."""
    classes: int
    """Number of classes; 0 for an unconditional model."""
    boundaries: tuple[float, ...]
    """Noise levels sigma between the stages."""
    schedule: ScheduleName
    preconditioning: PreconditioningName
    sigma_data: float
    network: NetworkConfig

    def __post_init__(self) -> None:
        if not 0 < self.sigma_data < math.inf:
            raise BadInput(f"The setting sigma_data must be positive, not {self.sigma_data}: do the images differ at all?")


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
        for name in ("seed", "warmup_images", "weight_decay", "clip_norm", "keep_every", "grid_images"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(f"The setting {name} must not be negative, not {getattr(self, name)}.")
        for name, given in (("learning_rates", self.learning_rates), ("warmups", self.warmups)):
            if any(not (0 < value < math.inf or (value == 0 and name == "warmups")) for value in given):
                raise BadInput(f"The setting {name} needs a positive number for each part, not {list(given)}.")
        for text in self.freeze:
            interval(text)
        if isinstance(self.shares, tuple) and (not self.shares or min(self.shares) <= 0 or not math.isfinite(sum(self.shares))):
            raise BadInput(f"The setting shares needs a positive number for each stage, not {list(self.shares)}.")
        widths = self.posthoc_ema
        if len(set(widths)) < len(widths) or any(not 0 < width <= WIDEST_AVERAGE for width in widths):
            raise BadInput(
                f"The setting posthoc_ema needs different widths between 0 and {WIDEST_AVERAGE:.4f}, not {list(widths)}."
            )
        if self.weight_decay and self.optimizer != "adamw":
            raise BadInput("The setting weight_decay is for the optimizer adamw.")
        if not 0 <= self.held_out < 1:
            raise BadInput(f"The setting held_out is a share of the images below 1, not {self.held_out}.")
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
        raise BadInput(f"The setting freeze takes numbers of images such as 50000, 20000:50000 or 20000:, not {text!r}.")
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


Config = TypeVar("Config")


def to_json(config: object) -> dict[str, Any]:
    """A configuration as an object that ``json`` can write."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def from_json(kind: type[Config], value: object) -> Config:
    """A configuration from parsed JSON.

    Raises:
        BadInput: if a setting is missing, unknown in type or out of its choices; names the first one.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise BadInput(f"Bad setting {where}: {first['msg']}.") from error
