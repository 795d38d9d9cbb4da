"""``multistage encode``: the latents of a data set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion import distributed
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.latents import print_latents, show_shards
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data import ReadOptions
from multistage_diffusion.data.options import reading_settings
from multistage_diffusion.latents import find_autoencoder
from multistage_diffusion.latents.encoding import EncodeOptions, encode_images, encoding_of

__all__ = ["COMMAND", "Encode"]


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Encode images with an autoencoder into a folder of latents, for cluster and train.

    The same command again continues an interrupted one. Several processes (torchrun) share the
    work.
    """

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md."""
    autoencoder: str
    """A name such as pca-f2c6 (linear patches: factor 2, 6 channels), the folder or hub id of an
    autoencoder of diffusers, or a folder of latents, whose autoencoder is used again."""
    out: Path
    """Folder of the latents."""
    encoding: Annotated[EncodeOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=EncodeOptions
    )
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if self.dry_run:
            return print_settings(to_json(self))
        device = distributed.float64_device()
        with distributed.process_group(device):
            images = read(self.data, self.reading)
            autoencoder = find_autoencoder(self.autoencoder, images)
            reading = reading_settings(self.reading)
            encoding = encoding_of(images, autoencoder, self.encoding, self.data, reading)
            with holding(self.out, "encode"):
                index = encode_images(images, autoencoder, encoding, self.out, show_shards, device)
            print_latents(encoding, index)
            print_line(f"latents are in {self.out}")


COMMAND = Encode
