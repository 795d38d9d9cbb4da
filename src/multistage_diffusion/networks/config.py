"""Settings of a network."""

from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput

__all__ = ["NetworkConfig", "Pyramid"]

Pyramid = Literal["none", "skip", "residual"]
WIDEST = 65_536  # channels
MOST_BLOCKS = 4096  # of all encoders and decoders
MOST_TAPS = 64


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """A U-Net of encoders and decoders.

    One of each: unified. One encoder, several decoders: multistage. Pairs of them: separate.
    Several encoders, one decoder: the other half is shared.
    """

    encoder_widths: tuple[int, ...] = setting((32,), at_least=1, at_most=WIDEST)
    """Channels of each encoder's top level: one shared encoder, or one for each stage."""
    decoder_widths: tuple[int, ...] = setting((48, 32, 16), at_least=1, at_most=WIDEST)
    """Channels of each decoder's top level, one decoder for each stage, smallest noise first, or a
    single one."""
    channel_mult: tuple[int, ...] = setting((1, 2), at_least=1, at_most=1024)
    """Channels of each level as multiples of the width; each further level halves the
    resolution."""
    blocks: int = setting(2, at_least=1, at_most=64)
    """Residual blocks in each level of an encoder; a decoder has one more."""
    attention_resolutions: tuple[int, ...] = setting((), at_least=1)
    """Image sizes (the longer side, in pixels) at which blocks have self-attention."""
    dropout: float = setting(0.0, at_least=0, below=1)
    """Dropout probability inside the residual blocks."""
    groups: int = setting(32, at_least=1, at_most=WIDEST)
    """Largest number of groups in a group normalisation."""
    group_channels: int = setting(4, at_least=1, at_most=WIDEST)
    """Smallest number of channels in a group."""
    norm_eps: float = setting(1e-6, above=0, at_most=1)
    """Added to the variance in a group normalisation."""
    bottom: Literal["encoder", "decoder", "none"] = "decoder"
    """Where the two blocks at the lowest resolution belong: in DPM-Solver and latent diffusion to
    the encoder, which all stages share, in EDM to each decoder."""
    bottom_attention: bool = True
    """Apply self-attention between these two blocks."""
    decoder_attention: Literal["last", "each", "first-decoder"] = "last"
    """Which blocks of a decoder's level have attention: the last one, each, or each of the first
    decoder (the paper's LDM)."""
    head_channels: int = setting(0, at_least=0, at_most=WIDEST)
    """Smallest number of channels of an attention head: the number of heads is the largest divisor
    of the channels that keeps it, or 1 where there are fewer channels. 0: see heads."""
    heads: int = setting(1, at_least=1, at_most=1024)
    """Number of attention heads if head_channels is 0; must divide the channels."""
    residual_scale: bool = True
    """Scale residual sums by sqrt(1/2)."""
    adaptive_scale: bool = False
    """Scale and shift the features by the embedding (ADM) instead of adding it."""
    project_resampled: bool = True
    """Use a 1x1 convolution in the skip connection of every resampling block."""
    resampling: Literal["block", "conv"] = "block"
    """Resample in residual blocks, or by convolutions between them (latent diffusion)."""
    downsampling_padding: Literal["sides", "end"] = "sides"
    """Where a convolution that halves the resolution pads: on all sides, or only below and to the
    right (DDPM)."""
    resample_filter: tuple[int, ...] = setting((1, 1), at_least=-1000, at_most=1000)
    """Filter of resampling: 1 1 is a box, 1 3 3 1 the smoother filter of NCSN++."""
    input_pyramid: Pyramid = "none"
    """Feed the image into every level of the encoder."""
    output_pyramid: Pyramid = "none"
    """Build the output from every level of the decoder."""
    embedding: Literal["positional", "fourier", "sinusoidal"] = "positional"
    """Features of the noise level: positional (DDPM++), random Fourier features (NCSN++), or
    sinusoidal (ADM, latent diffusion)."""
    embedding_mult: int = setting(1, at_least=1, at_most=1024)
    """Number of features of the noise level, as a multiple of the encoder's width."""
    label_embedding: Literal["before", "after"] = "before"
    """Add the class before the layers of the embedding (EDM) or after them (ADM, latent
    diffusion)."""
    label_dropout: float = setting(0.0, at_least=0, below=1)
    """Share of the training images whose class and context are dropped, for classifier-free
    guidance."""
    augment_channels: int = setting(0, at_least=0, at_most=WIDEST)
    """Channels of the augmentation labels: 9 for EDM's augmentation, 0 for none."""
    context_channels: int = setting(0, at_least=0, at_most=WIDEST)
    """Channels of a context for cross-attention, for example text; 0 for none."""
    transformer_depth: int = setting(1, at_least=1, at_most=64)
    """Transformer layers where there is a context."""

    @property
    def stages(self) -> int:
        """Number of stages: of decoders, or of the encoders that share one."""
        return max(len(self.encoder_widths), len(self.decoder_widths))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_widths", "decoder_widths", "channel_mult"):
            if not getattr(self, name):
                raise BadInput(f"The setting {name} needs at least one number.")
        self._check_filter()
        self._check_heads()
        self._check_blocks()

    def _check_filter(self) -> None:
        taps = self.resample_filter
        if len(taps) % 2 or sum(taps) == 0 or len(taps) > MOST_TAPS:
            raise BadInput(
                f"The setting resample_filter needs an even number of taps, at most {MOST_TAPS}, "
                f"whose sum is not 0; not {list(taps[:MOST_TAPS])}."
            )

    def _check_heads(self) -> None:
        most = max(self.encoder_widths + self.decoder_widths) * max(self.channel_mult)
        if self.head_channels > most:
            raise BadInput(
                f"The setting head_channels is {self.head_channels}, more than any level has: give "
                f"at most {most}, or 0 for a fixed number of heads."
            )

    def _check_blocks(self) -> None:
        parts = len(self.encoder_widths) + len(self.decoder_widths)
        blocks = parts * len(self.channel_mult) * (self.blocks + 1)
        if blocks > MOST_BLOCKS:
            raise BadInput(
                f"The network would have {blocks:,} blocks, the most is {MOST_BLOCKS:,}: lower "
                "blocks, or the number of channel_mult or decoder_widths."
            )
