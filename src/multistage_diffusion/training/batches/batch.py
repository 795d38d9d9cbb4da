"""The batches of a run, as functions of its configuration and the images seen.

What is drawn for a batch, but for its noise, is a few numbers for each image, and every process draws all of it. Pixels are
read and noise is drawn only for the samples a process computes. Both are the same however many processes there are.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.augment import Augmentation, draw_augmentation, mirror
from multistage_diffusion.data.images import Images, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.order import image_indices
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.randomness import Stream, generator

__all__ = ["Batch", "Draws", "Samples", "draw", "share_out"]


@dataclass(frozen=True)
class Batch:
    """What a step of training sees."""

    y: Tensor
    """Images, -1 to 1, ``[B, C, H, W]``."""
    sigma: Tensor
    """Noise levels, float64 ``[B]``, on the CPU."""
    noise: Tensor
    """Unit Gaussian noise like ``y``."""
    conditions: Conditions
    """Classes of the images and what augmentation did to them."""


@dataclass(frozen=True)
class Draws:
    """What is drawn for a batch before any image is read; everything has an entry for each sample."""

    seed: int
    first: int
    """Number of images that were seen before."""
    chosen: Tensor
    """Which images, int64 ``[B]``."""
    sigma: Tensor
    """Noise levels, float64 ``[B]``."""
    mirrored: Tensor
    """Which images are mirrored left-right, bool ``[B]``."""
    augmentation: Augmentation | None

    def read(
        self, start: int, stop: int, images: Images, conditional: bool, device: torch.device
    ) -> "Samples":
        """Reads the images of some of the samples and draws their noise; what is for a GPU lies in memory that it can reach."""
        rows, pinned = self.chosen[start:stop], device.type == "cuda"
        labels = images.labels[rows] if conditional and images.labels is not None else None
        if isinstance(images.pixels, Tensor) and images.pixels.device.type == "cuda":
            rows = rows.pin_memory().to(images.pixels.device, non_blocking=True)
        pixels, noise = images.pixels[rows], self._noise(start, stop, images.shape, pinned)
        if pinned:
            pixels = pixels if pixels.is_cuda else pixels.pin_memory()
            labels = None if labels is None else labels.pin_memory()
        return Samples(start, stop, pixels, noise, labels)

    def place(self, samples: "Samples", device: torch.device, layout: torch.memory_format) -> Batch:
        """Samples on a device but for their levels; bytes are scaled, mirrored and augmented there."""
        here = slice(samples.start, samples.stop)
        pixels, noise = (
            values.to(device, non_blocking=True) for values in (samples.pixels, samples.noise)
        )
        y = mirror(to_unit_range(pixels), self.mirrored[here])
        conditions = Conditions(labels=samples.labels)
        if self.augmentation is not None:
            part = self.augmentation[here]
            y = part.apply(y)
            conditions = replace(conditions, augment=part.labels)
        return Batch(
            y.contiguous(memory_format=layout),
            self.sigma[here],
            noise.contiguous(memory_format=layout),
            conditions.to(device, non_blocking=True),
        )

    def _noise(self, start: int, stop: int, shape: tuple[int, int, int], pinned: bool) -> Tensor:
        """The noise of each sample is a function of seed and number of images seen, by a generator that counts (Philox)."""
        noise = torch.empty(stop - start, *shape, pin_memory=pinned)
        for row, number in zip(
            noise.numpy(), range(self.first + start, self.first + stop), strict=True
        ):
            counting = np.random.Philox(key=(self.seed << 8) + Stream.NOISE, counter=number << 128)
            np.random.Generator(counting).standard_normal(dtype=np.float32, out=row)
        return noise


@dataclass(frozen=True)
class Samples:
    """Some samples of a batch as they were read."""

    start: int
    stop: int
    pixels: Tensor
    """Bytes, ``[b, C, H, W]``."""
    noise: Tensor
    """float32 like ``pixels``."""
    labels: Tensor | None
    """Classes, int64 ``[b]``."""


def draw(config: RunConfig, images: Images, levels: Levels, seen: int) -> Draws:
    """What is drawn for the batch that follows after ``seen`` images."""
    recipe, count = config.training, config.training.batch_size
    source = generator(recipe.seed, Stream.STEP, seen)
    mirrored = torch.rand(count, generator=source) < (0.5 if recipe.flip else 0.0)
    augmentation = (
        draw_augmentation(count, images.shape[1:], recipe.augment, source)
        if recipe.augment
        else None
    )
    chosen = image_indices(recipe.seed, len(images), seen, count)
    return Draws(recipe.seed, seen, chosen, levels.draw(count, source), mirrored, augmentation)


def share_out(batch: int, count: int, parts: int) -> list[list[tuple[int, int]]]:
    """Which samples of a batch each process computes, in how many parts: first and last, by part and process.

    Raises:
        BadInput: if there are fewer samples than parts.
    """
    if batch < count * parts:
        raise BadInput(
            f"Batches of {batch} images are too small for {count} processes and {parts} parts in each."
        )
    own = [
        (_cut(0, batch, process, count), _cut(0, batch, process + 1, count))
        for process in range(count)
    ]
    return [
        [(_cut(*whole, part, parts), _cut(*whole, part + 1, parts)) for whole in own]
        for part in range(parts)
    ]


def _cut(start: int, stop: int, index: int, count: int) -> int:
    """The beginning of one of ``count`` nearly equal parts of a range."""
    return start + (stop - start) * index // count
