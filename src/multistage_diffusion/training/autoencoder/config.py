"""The configuration of an autoencoder's training."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.ema.config import AveragingConfig
from multistage_diffusion.training.optimization import OptimizationConfig
from multistage_diffusion.training.precision import PrecisionName

__all__ = ["AutoencoderPreset", "AutoencoderRun", "NetworkSettings", "averaging", "optimization"]


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network: diffusers' AutoencoderKL or VQModel."""

    kind: Annotated[Literal["kl", "vq"], tyro.conf.Suppress] = "kl"
    """A normal distribution for each latent value, or vectors of a codebook."""
    widths: tuple[int, ...] = setting((64, 128), at_least=1, at_most=65_536)
    """Channels of each level; each further level halves the resolution."""
    blocks: int = setting(2, at_least=1, at_most=64)
    """Residual blocks in each level of the encoder; the decoder has one more."""
    latent_channels: int = setting(4, at_least=1, at_most=65_536)
    """Channels of the latents."""
    codes: int = setting(8192, at_least=2, at_most=10_000_000)
    """Vectors in the codebook (vq)."""

    @property
    def factor(self) -> int:
        """How many times smaller latents are than images, a side."""
        return 2 ** (len(self.widths) - 1)


@dataclass(frozen=True, kw_only=True)
class LengthSettings(Settings):
    """How the network is trained. Lengths are counted in images."""

    images: int = setting(1_000_000, above=0, may_change=True)
    """Length of the run in images. It may change when a run is resumed."""
    batch_size: int = setting(32, above=0)
    """Images in one step, over all processes."""
    learning_rate: float = setting(3e-4, above=0, at_most=1000)
    """Learning rate after the warm-up."""
    warmup_images: int = setting(10_000, at_least=0)
    """Images over which the learning rate rises linearly at the start."""
    clip_norm: float = setting(1.0, at_least=0)
    """Largest norm of the gradient; 0 for no limit."""
    ema_half_life: int = setting(50_000, above=0)
    """Half-life of the averaged weights, in images."""
    precision: PrecisionName = "bf16"
    """bf16 runs the network in bfloat16 with float32 weights."""
    flip: bool = True
    """Mirror images left-right at random."""
    held_out: float = setting(0.05, above=0, below=1)
    """Share of the images that is held out, on which PSNR and SSIM are measured."""
    record_images: int = setting(20_000, above=0, may_change=True)
    """Images between records."""
    checkpoint_images: int = setting(100_000, above=0, may_change=True)
    """Images between checkpoints."""
    seed: int = setting(0, at_least=0)
    """Seed of the initial weights, the order of images and noise."""


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The loss: the mean absolute error of the pixels, plus the terms below."""

    kl_weight: float = setting(1e-6, at_least=0)
    """Weight of the divergence from a unit normal distribution (kl), as in latent diffusion."""
    codebook_weight: float = setting(1.0, at_least=0)
    """Weight of the distance of latents to their codes (vq)."""
    perceptual: float = setting(0.0, at_least=0)
    """Weight of the difference of EfficientNet-Lite0's feature maps; 0 for none."""
    discriminator: float = setting(0.0, at_least=0)
    """Weight of a patch discriminator; 0 for none."""
    discriminator_start: int = setting(100_000, at_least=0)
    """Images after which the discriminator is used."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderPreset:
    """A network and how to train it, without the data."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: LengthSettings = field(default_factory=LengthSettings)
    loss: LossSettings = field(default_factory=LossSettings)


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun:
    """A whole training run of an autoencoder."""

    preset: AutoencoderPreset
    shape: tuple[int, int, int]
    """Channels, height, width of the images."""
    data: str
    """Fingerprint of the images."""
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        factor = self.preset.network.factor
        if self.shape[1] % factor or self.shape[2] % factor:
            raise BadInput(
                f"The latents are {factor} times smaller than the images, and "
                f"{self.shape[1]}x{self.shape[2]} are no multiples of {factor}: give --size."
            )


def optimization(training: LengthSettings) -> OptimizationConfig:
    """The settings of the optimizer that denoisers have too."""
    return OptimizationConfig(clip_norm=training.clip_norm, warmup_images=training.warmup_images)


def averaging(training: LengthSettings) -> AveragingConfig:
    """The settings of the averaged weights that denoisers have too."""
    return AveragingConfig(ema_half_life=training.ema_half_life)
