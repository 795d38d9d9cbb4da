"""How images are read."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.data.decoding import MAX_PIXELS
from multistage_diffusion.errors import BadInput

__all__ = ["Fit", "Layout", "ReadOptions", "reading_settings"]

Fit = Literal["center-crop", "resize", "pad"]
Layout = Literal["channels-first", "channels-last"]
NO_PIXELS = frozenset({"labels", "label_column", "skip_broken", "cache"})
"""Options that do not decide about the pixels of an image."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Settings):
    """How images are read. Give the same to every command that reads the same data.

    Raises:
        BadInput: if a setting is out of its range.
    """

    size: tuple[int, ...] = setting((), at_least=1, at_most=65_536)
    """Height and width of every image, or one number for a square. Needed where sizes differ."""
    fit: Fit = "center-crop"
    """center-crop: scale and cut out the middle; resize: stretch; pad: scale and reflect edges."""
    labels: Path | None = None
    """File of labels: CSV with the header file,label; JSON {"file": label} or a line for each
    image; EDM's dataset.json. It replaces all other labels."""
    label_column: str | None = None
    """Column of a table or of metadata.csv, or key of a sample's .json, with the label. Default:
    first class label; label."""
    skip_unlabelled: bool = False
    """Leave out images without a label, and name them."""
    split: str | None = None
    """Part of a data set, such as test. Default: train, or the only one."""
    image_key: str | None = None
    """Which image of a WebDataset sample, such as input for key.input.png; or column of a table
    with the images."""
    pages: Literal["first", "all"] = "first"
    """Which pages or frames of a file are read (TIFF, GIF, APNG)."""
    transparency: Literal["white", "keep"] = "white"
    """Compose transparent images onto white, or keep alpha as a fourth channel of all images."""
    max_value: int | None = setting(None, at_least=1, at_most=65535)
    """Value of 16-bit images that becomes 255. Default: the largest value of the smallest bit
    depth, 8 to 16, that holds all values of the data set."""
    max_pixels: int = setting(MAX_PIXELS, at_least=1)
    """Images with more pixels than this count as broken."""
    layout: Layout | None = None
    """Order of the axes of arrays. Default: inferred from their sizes, if these are unambiguous."""
    value_range: tuple[float, float] | None = None
    """Values of black and white in floating-point arrays. Default: 0 1, -1 1 or 0 255, inferred."""
    latents: bool = False
    """Read floating-point arrays as latents of an autoencoder, [N, C, H, W], without conversion."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded, and name them, instead of stopping."""
    cache: Path | None = None
    """Folder for decoded images. Default: ~/.cache/multistage-diffusion over 1 GiB, else memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) > 2:
            given = " ".join(map(str, self.size))
            raise BadInput(
                f"--size takes a height and a width, or one number for both, not {given}."
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            low, high = self.value_range
            raise BadInput(f"--value-range takes black and white, not {low:g} and {high:g}.")

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size as two numbers, if one is given."""
        return (self.size[0], self.size[-1]) if self.size else None

    @property
    def of_pixels(self) -> dict[str, object]:
        """The options that decide which pixels are read, as JSON."""
        chosen = (field.name for field in fields(self) if field.name not in NO_PIXELS)
        return {name: getattr(self, name) for name in chosen}


def reading_settings(reading: ReadOptions) -> dict[str, Any]:
    """The options that decide which images are read, as JSON."""
    return {name: value for name, value in to_json(reading).items() if name != "cache"}
