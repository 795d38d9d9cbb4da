"""``multistage autoencoder``: trains an autoencoder from a preset and a data set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion import distributed
from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.main import INTERRUPTED
from multistage_diffusion.cli.progress import increments, show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.signals import stop_on_signal
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data import ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.perceptual import perceptual_distance
from multistage_diffusion.presets.autoencoders import ABOUT_AUTOENCODERS, AUTOENCODERS
from multistage_diffusion.training.autoencoder import (
    AutoencoderPreset,
    AutoencoderRecord,
    AutoencoderRun,
    train_autoencoder,
)
from multistage_diffusion.training.autoencoder.loop import check_folder, training_file

__all__ = ["COMMAND", "TrainAutoencoder"]


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder:
    """Train an autoencoder for latent diffusion. The same command again continues an interrupted
    run.

    The folder that it writes is one for --autoencoder and for diffusers' from_pretrained.
    """

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md."""
    out: Path
    """Folder of the autoencoder."""
    preset: Annotated[AutoencoderPreset, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    dry_run: bool = False
    """Print the resolved configuration and stop."""

    def run(self) -> int:
        device = distributed.float64_device()
        with distributed.process_group(device):
            images = read(self.data, self.reading)
            if not images.space.stores_pixels:
                raise BadInput(f"{self.data} holds latents; an autoencoder is trained on images.")
            config = AutoencoderRun(preset=self.preset, shape=images.shape, data=images.fingerprint)
            if self.dry_run:
                print_settings(to_json(config))
                return 0
            check_folder(self.out, config)
            perceptual = perceptual_distance(device) if self.preset.loss.perceptual else None
            with holding(self.out, "autoencoder"), stop_on_signal() as should_stop:
                records = train_autoencoder(
                    config, images, self.out, should_stop, perceptual, device
                )
                total = self.preset.training.images
                last = _follow(records, total)
            return self._finish(should_stop() and (last is None or last.images < total))

    def _finish(self, interrupted: bool) -> int:
        if interrupted:
            print_line(f"interrupted; the state is in {self.out}, the same command continues")
            return INTERRUPTED
        picture = training_file(self.out, "reconstructions.png")
        print_line(
            f"trained; the autoencoder is in {self.out}, originals above their reconstructions in "
            f"{picture}"
        )
        return 0


COMMAND = subcommands(
    {
        name: TrainAutoencoder(data=tyro.MISSING, out=tyro.MISSING, preset=preset)
        for name, preset in AUTOENCODERS.items()
    },
    ABOUT_AUTOENCODERS,
    TrainAutoencoder.__doc__ or "",
)


def _follow(records: Iterator[AutoencoderRecord], total: int) -> AutoencoderRecord | None:
    """Shows progress; returns the last record."""
    last = None
    for record in show_progress(records, "images", total, increments(), _describe):
        last = record
    return last


def _describe(record: AutoencoderRecord) -> str:
    words = [
        f"error {record.error:.4f}",
        f"held out {record.psnr:.1f} dB, SSIM {record.ssim:.3f}",
        f"{record.images_per_second:.0f} img/s",
    ]
    if record.codes is not None:
        words.insert(2, f"{record.codes:.0%} of the codes used")
    if record.skipped:
        words.append(f"{record.skipped} steps skipped, not finite")
    return "  ".join(words)
