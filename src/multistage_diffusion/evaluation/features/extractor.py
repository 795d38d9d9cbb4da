"""What a feature extractor is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput

__all__ = ["Extractor", "FeaturePrecision", "Progress", "no_progress", "resized"]

FeaturePrecision = Literal["float32", "bf16"]

Progress = Callable[[Iterable[Tensor], str, int], Iterable[Tensor]]
"""Passes batches through and may show progress; it is also given a label and the total number."""


def no_progress(batches: Iterable[Tensor], *_: str | int) -> Iterable[Tensor]:
    """The progress that shows nothing."""
    return batches


@dataclass(frozen=True)
class Extractor:
    """A function from images to features.

    Attributes:
        name: part of the name of every result, such as ``fd-<name>``.
        features: uint8 ``[B, C, H, W]`` on the extractor's device to ``[B, F]``.
        batch: images taken at a time.
        identity: distinguishes extractors of one name, such as the fingerprint of a weights file.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    batch: int
    identity: str = ""

    @torch.inference_mode()
    def extract(
        self,
        images: Tensor,
        label: str = "",
        progress: Progress = no_progress,
        precision: FeaturePrecision = "float32",
    ) -> Tensor:
        """The features of images, float32 ``[N, F]`` on the CPU.

        Args:
            images: uint8 ``[N, C, H, W]``.
            label: what progress and messages call the images.
            progress: passes batches of features through.
            precision: that of the network; features are always float32.

        Raises:
            BadInput: if there are no images, or the extractor fails on them.
        """
        if len(images) == 0:
            raise BadInput(f"There are no {label} images to evaluate.")
        batches = self._batches(images, precision)
        return torch.cat(list(progress(batches, f"{label} images", len(images))))

    def _batches(self, images: Tensor, precision: FeaturePrecision) -> Iterator[Tensor]:
        device = default_device()
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        for batch in images.split(self.batch):
            with autocast:
                features = self.features(batch.to(device))
            if features.ndim != 2:
                shape = "x".join(map(str, features.shape))
                raise BadInput(
                    f"The extractor {self.name} gives {shape} for {len(batch)} images, not one "
                    "vector for each."
                )
            yield features.float().cpu()


def resized(images: Tensor, side: int) -> Tensor:
    """Images as three channels of ``side`` x ``side``, float32, values 0 to 255.

    Bicubic, antialiased; grey is repeated.

    Args:
        images: uint8 ``[B, C, H, W]`` with 1 or 3 channels.
        side: height and width.

    Raises:
        BadInput: for other numbers of channels.
    """
    if images.shape[1] not in (1, 3):
        raise BadInput(
            f"Networks trained on photographs take 1 or 3 channels, not {images.shape[1]}; use "
            "--extractor pixels or a file."
        )
    colour = images.float().expand(-1, 3, -1, -1)
    size = (side, side)
    return F.interpolate(colour, size, mode="bicubic", antialias=True).clamp(0, 255)
