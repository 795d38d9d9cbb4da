"""How images are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput

__all__ = ["Fit", "ReadOptions"]

Fit = Literal["center-crop", "resize", "pad"]


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
    """File of labels: CSV with the header file,label; JSON {"file": label}; EDM's dataset.json."""
    label_column: str | None = None
    """Column of a table, or key of a sample's .json, with the label. Default: first class label."""
    split: str | None = None
    """Part of a Hugging Face data set, such as test. Default: train, or the only one."""
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

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """The size as two numbers, if one is given."""
        return (self.size[0], self.size[-1]) if self.size else None
