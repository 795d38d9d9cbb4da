"""Inspection of a folder of latents: channels, histograms, and decoded images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from multistage_diffusion.config import read_config, to_json
from multistage_diffusion.data.images import Images, evenly_spaced
from multistage_diffusion.data.png import grid_image, save_png
from multistage_diffusion.data.sources.latents import (
    ENCODING,
    INDEX,
    Encoding,
    LatentIndex,
    read_encoding,
    read_latents,
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.latents import space_of_model
from multistage_diffusion.run import claim

__all__ = ["LatentFindings", "are_latents", "inspect_latents", "write_latent_inspection"]

BINS = 64
REACH = 5.0  # standard deviations to each side
SHOWN = 64
MOST_PANELS = 16
RESULT = "inspection.json"


@dataclass(frozen=True)
class LatentFindings:
    """What is in a folder of latents."""

    encoding: Encoding
    index: LatentIndex
    histograms: NDArray[np.int64]
    """Values of each channel by deviations from its mean, ``[C, BINS]``, -5 to 5."""
    outside: list[float]
    """Share of the values of each channel beyond 5 deviations."""
    correlation: float
    """Largest absolute correlation of two channels."""


def are_latents(data: str) -> bool:
    """Whether a name is that of a folder of latents."""
    return (Path(data) / ENCODING).is_file()


def inspect_latents(folder: Path) -> LatentFindings:
    """Looks at all latents once.

    Raises:
        BadInput: if encoding was not completed.
    """
    images = read_latents(folder)
    channels = images.shape[0]
    counts = torch.zeros(channels, BINS, dtype=torch.int64)
    products = torch.zeros(channels, channels, dtype=torch.float64)
    total = 0
    for block in images.blocks():
        values = block.movedim(1, 0).flatten(1)
        total += values.shape[1]
        products += values.double() @ values.double().T
        counts += torch.stack([torch.histc(row, BINS, -REACH, REACH).long() for row in values])
    outside = [1 - int(row.sum()) / total for row in counts]
    scale = products.diagonal().clamp(min=1e-12).sqrt()
    correlations = (products / scale / scale[:, None]).fill_diagonal_(0)
    index = read_config(LatentIndex, folder / INDEX)
    largest = float(correlations.abs().max())
    return LatentFindings(read_encoding(folder), index, counts.numpy(), outside, largest)


def write_latent_inspection(data: Path, found: LatentFindings, out: Path) -> None:
    """Writes ``contact-sheet.png`` (decoded), ``histograms.png`` and ``inspection.json``.

    Raises:
        BadInput: if the folder holds anything else, or the autoencoder is not there any more.
    """
    claim(out, f"holds no inspection of {data}", lambda path: _inspects(path, data), folder=True)
    pixels = _decoded(read_latents(data))
    save_png(out / "contact-sheet.png", grid_image(pixels, columns=8))
    canvas = FigureCanvasAgg(_histograms(found))
    canvas.draw()
    save_png(out / "histograms.png", Image.fromarray(np.asarray(canvas.buffer_rgba())))
    write_json(out / RESULT, {"data": str(data), **_as_json(found)})


def _inspects(path: Path, data: Path) -> bool:
    try:
        earlier = read_json(path / RESULT)
    except BadInput:
        return False
    return isinstance(earlier, dict) and earlier.get("data") == str(data)


def _decoded(images: Images) -> torch.Tensor:
    """Some of the images, evenly spaced: uint8 ``[n, C, H, W]``."""
    return space_of_model(images.latents).decode(images.pixels[evenly_spaced(len(images), SHOWN)])


def _as_json(found: LatentFindings) -> dict[str, Any]:
    return {
        "encoding": to_json(found.encoding),
        "mean": list(found.index.mean),
        "deviation": list(found.index.deviation),
        "rounding": found.index.rounding,
        "psnr": found.index.psnr,
        "histograms": found.histograms.tolist(),
        "outside": found.outside,
        "largest_correlation": found.correlation,
    }


def _histograms(found: LatentFindings) -> Figure:
    """The density of each channel beside that of a normal distribution."""
    shown = found.histograms[:MOST_PANELS]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3 * columns, 2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    x = np.linspace(-REACH, REACH, BINS + 1)
    middle = (x[1:] + x[:-1]) / 2
    normal = np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
    for channel, (panel, counts) in enumerate(zip(panels, shown, strict=False)):
        density = counts / max(1, counts.sum()) / (x[1] - x[0])
        panel.stairs(density, x, fill=True, alpha=0.6)
        panel.plot(middle, normal, color="black", linewidth=0.8)
        panel.set_title(f"channel {channel}", fontsize=9)
    for panel in panels[len(shown) :]:
        panel.axis("off")
    figure.supxlabel("standard deviations from the mean; line: normal distribution", fontsize=9)
    return figure
