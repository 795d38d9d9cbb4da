"""What commands print about latents."""

from multistage_diffusion import distributed
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_table
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.data.sources.latents import Encoding, LatentIndex
from multistage_diffusion.latents.encoding import Shards
from multistage_diffusion.latents.prepared import cached_latents

__all__ = ["latents_of", "print_latents", "show_shards"]

MOST_CHANNELS = 32


def show_shards(shards: Shards, total: int) -> Shards:
    """Shows how many shards are encoded, if there are several."""
    return show_progress(shards, "shards encoded", total, lambda _: 1) if total > 1 else shards


def latents_of(
    autoencoder: str, images: Images, data: str, reading: ReadOptions, mirrored: bool
) -> Images:
    """The latents of a data set, from the cache if they are there."""
    device = distributed.float64_device()
    return cached_latents(images, autoencoder, data, reading, mirrored, show_shards, device)


def print_latents(encoding: Encoding, index: LatentIndex) -> None:
    """Prints shape, statistics and reconstruction error of latents."""
    latent = "x".join(map(str, encoding.shape))
    image = "x".join(map(str, encoding.image_shape))
    name = encoding.autoencoder.name
    print_line(f"{encoding.images:,} images {image} as latents {latent}, by {name}")
    statistics = list(zip(index.mean, index.deviation, strict=True))
    rows = [
        [str(channel), f"{mean:.4f}", f"{deviation:.4f}"]
        for channel, (mean, deviation) in enumerate(statistics[:MOST_CHANNELS])
    ]
    print_table(["channel", "mean", "standard deviation"], rows)
    if len(statistics) > MOST_CHANNELS:
        print_line(f"and {len(statistics) - MOST_CHANNELS} more channels")
    lost = (
        "decoding changes no pixel"
        if index.psnr is None
        else f"decoded images have a PSNR of {index.psnr:.1f} dB"
    )
    print_line(
        f"stored as {encoding.stored}, which changes them by {index.rounding:.2g} of their size; "
        f"{lost}"
    )
