"""The networks of the paper on its three bases, with the recipes of the bases.

They are exact to the last parameter. Each has a unified twin, which is the base as it was, and a
separate one, a whole network for each stage.

Where release and paper, or release and base, disagree:

- Boundaries are the release's numbers. EDM's second one, 7.6577, is t = 0.636 where the paper says
  0.631; it is kept because the published results come from it. No others are published for
  CelebA-32.
- Group normalisations have at most 16 groups in the release's EDM and DPM-Solver networks, so that
  width 16 works, and in its baselines too. The multi-stage presets keep 16; the unified and
  separate twins have the 32 of their bases.
- In the release's latent diffusion only the first decoder has attention (``decoder_attention``).
  ``ldm-celebahq256`` keeps that, for its parameter count and weights; ``ldm-256`` has attention in
  every decoder: new work should start from it.
- The paper's command for EDM has batches of 128 images. The presets keep EDM's 512, for which its
  learning rate, warm-up and averaging were chosen.
- The half-life of a decoder's averaged weights counts the images of its own stage (``ema_clock``
  own), as if it were trained separately; in the release it counts all images, which
  ``--ema-clock common`` does.
- Images of all noise levels are mixed in a batch, by their shares in the density; the release
  gives a batch to one stage.
"""

from multistage_diffusion.config import replace_settings
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.presets.preset import DiffusionConfig, Preset
from multistage_diffusion.schedule import DDPM, VP
from multistage_diffusion.training.config import TrainingConfig

__all__ = ["DPM_CIFAR10", "EDM_CIFAR10", "LDM_256", "PAPER"]

EDM_CIFAR10 = Preset(
    diffusion=DiffusionConfig(
        schedule="edm",
        preconditioning="edm",
        sigma_data=0.5,
        boundaries=(2.5103, 7.6577),
    ),
    network=NetworkConfig(
        encoder_widths=(128,),
        decoder_widths=(192, 128, 16),
        channel_mult=(2, 2, 2),
        blocks=4,
        attention_resolutions=(16,),
        dropout=0.13,
        groups=16,
        augment_channels=9,
    ),
    training=replace_settings(
        TrainingConfig(),
        images=200_000_000,
        batch_size=512,
        learning_rate=1e-3,
        warmup_images=10_000_000,
        ema_half_life=500_000,
        ema_rampup=0.05,
        flip=False,
        augment=0.12,
        record_images=50_000,
        checkpoint_images=2_500_000,
        snapshot_images=2_500_000,
    ),
)

DPM_CIFAR10 = Preset(
    diffusion=DiffusionConfig(
        schedule="vp",
        preconditioning="vp",
        boundaries=(float(VP().from_clock(0.4420)), float(VP().from_clock(0.6308))),
    ),
    network=NetworkConfig(
        encoder_widths=(128,),
        decoder_widths=(192, 128, 16),
        channel_mult=(1, 2, 2, 2),
        blocks=8,
        attention_resolutions=(16,),
        dropout=0.1,
        groups=16,
        bottom="encoder",
        resample_filter=(1, 3, 3, 1),
        input_pyramid="residual",
    ),
    training=replace_settings(
        TrainingConfig(),
        images=57_600_000,  # 450,000 iterations
        batch_size=128,
        learning_rate=2e-4,
        warmup_images=640_000,  # 5,000 iterations
        clip_norm=1.0,
        ema_half_life=887_000,  # a decay of 0.9999 in each iteration, reached as (1 + n) / (10 + n)
        ema_rampup=0.077,
        record_images=12_800,
        checkpoint_images=1_280_000,
        snapshot_images=640_000,
    ),
)

LDM_256 = Preset(
    diffusion=DiffusionConfig(
        schedule="ddpm",
        preconditioning="ddpm",
        boundaries=(float(DDPM().from_clock(441.5)), float(DDPM().from_clock(630.5))),
    ),
    shape=(3, 64, 64),
    network=NetworkConfig(
        encoder_widths=(224,),
        decoder_widths=(256, 192, 128),
        channel_mult=(1, 2, 3, 4),
        blocks=2,
        attention_resolutions=(32, 16, 8),
        group_channels=1,
        norm_eps=1e-5,
        bottom="encoder",
        decoder_attention="each",
        head_channels=32,
        residual_scale=False,
        resampling="conv",
        embedding="sinusoidal",
        label_embedding="after",
    ),
    training=replace_settings(
        TrainingConfig(),
        images=8_160_000,  # 170,000 iterations
        batch_size=48,
        optimizer="adamw",
        learning_rate=9.6e-5,  # 2e-6 for each image of a batch
        weight_decay=0.01,
        warmup_images=0,
        ema_half_life=332_700,
        ema_rampup=0.077,
        record_images=4_800,
        checkpoint_images=480_000,
        snapshot_images=96_000,
    ),
)


def _unified(preset: Preset) -> Preset:
    """One decoder as wide as the encoder."""
    width = preset.network.encoder_widths
    return replace_settings(preset, boundaries=(), decoder_widths=width, groups=32)


def _separate(preset: Preset) -> Preset:
    """A unified network for each stage."""
    widths = preset.network.encoder_widths * len(preset.network.decoder_widths)
    return replace_settings(preset, encoder_widths=widths, decoder_widths=widths, groups=32)


def _with_twins(
    name: str, about: str, preset: Preset, base: Preset
) -> dict[str, tuple[str, Preset]]:
    return {
        name: (f"{about}: the paper's multi-stage network.", preset),
        f"{name}-unified": (
            f"{about}: the base, one network for all noise levels.",
            _unified(base),
        ),
        f"{name}-separate": (f"{about}: a whole network for each stage.", _separate(base)),
    }


_RELEASED_LDM = replace_settings(LDM_256, decoder_attention="first-decoder")

PAPER: dict[str, tuple[str, Preset]] = {
    **_with_twins("edm-cifar10", "EDM on CIFAR-10", EDM_CIFAR10, EDM_CIFAR10),
    **_with_twins("edm-celeba32", "EDM on CelebA at 32x32", EDM_CIFAR10, EDM_CIFAR10),
    **_with_twins("dpm-cifar10", "DPM-Solver (VP) on CIFAR-10", DPM_CIFAR10, DPM_CIFAR10),
    **_with_twins("ldm-celebahq256", "Latent diffusion, 64x64 latents", _RELEASED_LDM, LDM_256),
    "ldm-256": (
        "Latent diffusion, 64x64 latents: multi-stage with attention in every decoder.",
        LDM_256,
    ),
}
"""A line about each preset, and the preset."""
