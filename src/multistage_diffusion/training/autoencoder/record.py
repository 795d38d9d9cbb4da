"""Records of an autoencoder's training, and what is measured for them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.latents.autoencoder import Autoencoder, decode, encode
from multistage_diffusion.latents.pretrained import wrap_diffusers
from multistage_diffusion.latents.quality import image_psnr

__all__ = ["AutoencoderRecord", "Quality", "append_line", "drop_lines_after", "measure_quality"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecord:
    """The steps since the last record, and the quality of the averaged weights."""

    images: int
    error: float
    """Mean absolute error of a pixel in training, in the range -1 to 1."""
    penalty: float
    """Weighted KL divergence or codebook loss."""
    psnr: float
    """Of held-out images, dB."""
    ssim: float
    """Of held-out images."""
    codes: float | None
    """Share of the codebook that was used since the last record; None without one."""
    images_per_second: float
    skipped: int
    """Steps without a finite gradient."""


@dataclass(frozen=True)
class Quality:
    """How well held-out images are reconstructed."""

    psnr: float
    """Mean over images of the peak signal-to-noise ratio, dB."""
    ssim: float
    """Structural similarity."""
    reconstructed: Tensor
    """uint8 ``[N, C, H, W]``."""


def measure_quality(network: nn.Module, pixels: Tensor, device: torch.device) -> Quality:
    """Reconstructs images with the means of their latents.

    Args:
        network: of ``build_network``.
        pixels: uint8 ``[N, C, H, W]``.
        device: where the network is.
    """
    training = network.training
    trained = {name: p.requires_grad for name, p in network.named_parameters()}
    wrapped: Autoencoder = wrap_diffusers(network, "")
    reconstructed = decode(wrapped, encode(wrapped, pixels.to(device)).mean).cpu()
    network.train(training)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained[name])
    psnr = image_psnr(reconstructed, pixels).clamp(max=100).mean()
    return Quality(float(psnr), _ssim(reconstructed, pixels), reconstructed)


def _ssim(reconstructed: Tensor, pixels: Tensor) -> float:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise BadInput(
            "Training an autoencoder needs torchmetrics: pip install "
            "'multistage-diffusion[latent]'."
        ) from error
    value = structural_similarity_index_measure(
        reconstructed.float(), pixels.float(), data_range=255.0
    )
    assert isinstance(value, Tensor)
    return float(value)


def append_line(path: Path, record: AutoencoderRecord) -> None:
    """Adds a record to a file with a line of JSON for each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(to_json(record)) + "\n")


def drop_lines_after(path: Path, images: int) -> None:
    """Removes the records of steps that are about to be repeated, and a last line cut short."""
    if path.exists():
        kept = [line for line, seen in _complete(path) if seen <= images]
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _complete(path: Path) -> Iterator[tuple[str, int]]:
    """The lines that end, each with its number of images.

    Raises:
        BadInput: if one of them is damaged.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.endswith("\n"):
            yield line.rstrip("\n"), _images(line, f"{path}, line {number}")


def _images(line: str, where: str) -> int:
    try:
        return from_json(_Seen, json.loads(line), where).images
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What every record has."""

    images: int
