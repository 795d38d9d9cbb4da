"""The batches of a run, as functions of its configuration and the images seen.

What is drawn for a batch, except its noise, is a few numbers for each image, and every rank draws
all of it. Pixels are read and noise is drawn only for the samples that a rank computes. Both are
the same for any world size.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.augment import Augmentation, draw_augmentation, mirror
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.networks.embedding import NO_LABEL
from multistage_diffusion.space import to_unit_range
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.order import image_indices
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.randomness import Stream, generator, hashed

__all__ = ["Batch", "Draws", "Samples", "draw"]


@dataclass(frozen=True)
class Batch:
    """What a training step computes its loss on."""

    y: Tensor
    """Images, -1 to 1, ``[B, C, H, W]``."""
    sigma: Tensor
    """Noise levels, float64 ``[B]``, on the CPU."""
    noise: Tensor
    """Unit Gaussian noise like ``y``."""
    conditions: Conditions


@dataclass(frozen=True)
class Samples:
    """Some samples of a batch as they were read."""

    rows: Tensor
    """Which ones, increasing, int64 ``[b]``."""
    pixels: Tensor
    """Bytes, ``[b, C, H, W]``."""
    noise: Tensor
    """float32 like ``pixels``."""
    labels: Tensor | None
    """Classes, int64 ``[b]``."""
    context: Tensor | None = None
    """What the network attends to, float32 ``[b, tokens, channels]``."""


@dataclass(frozen=True)
class Draws:
    """The random choices for a batch, made before any image is read; an entry for each sample."""

    seed: int
    first: int
    """Images seen before the batch."""
    chosen: Tensor
    """Indices of the images, int64 ``[B]``."""
    sigma: Tensor
    """Noise levels, float64 ``[B]``."""
    mirrored: Tensor
    """Which images are mirrored left-right, bool ``[B]``."""
    augmentation: Augmentation | None
    unlabelled: Tensor | None = None
    """Which classes and contexts are hidden from the network, bool ``[B]``."""
    candidates: int = 1
    """Noises drawn for each image, of which the nearest is taken."""
    mirrored_copies: bool = False
    """Whether the data set holds mirrored copies, which are read instead of mirroring."""

    def read(
        self, rows: Tensor, images: Images, conditional: bool, device: torch.device
    ) -> Samples:
        """Reads the images of some of the samples, ``rows``, and draws their noise.

        What is for a GPU is in pinned memory.
        """
        chosen = self.chosen[rows]
        labels = images.labels[chosen] if conditional and images.labels is not None else None
        if labels is not None and self.unlabelled is not None:
            labels = torch.where(self.unlabelled[rows], NO_LABEL, labels)
        context = self._context(images, rows)
        pixels = self._pixels(images, chosen, self.mirrored[rows])
        noise = self._noise(rows, images.shape, pinned=device.type == "cuda")
        if self.candidates > 1:
            self._choose_nearest(noise, pixels, rows)
        if device.type == "cuda":
            pixels = pixels if pixels.is_cuda else pixels.pin_memory()
            labels = None if labels is None else labels.pin_memory()
            context = None if context is None else context.pin_memory()
        return Samples(rows, pixels, noise, labels, context)

    def place(
        self, samples: Samples, device: torch.device, memory_format: torch.memory_format
    ) -> Batch:
        """A batch of samples on a device, except for their noise levels.

        Bytes are scaled, mirrored and augmented there.
        """
        here = samples.rows
        pixels = samples.pixels.to(device, non_blocking=True)
        noise = samples.noise.to(device, non_blocking=True)
        y = to_unit_range(pixels)
        if not self.mirrored_copies:
            y = mirror(y, self.mirrored[here])
        augment = None
        if self.augmentation is not None:
            augmentation = self.augmentation[here]
            y = augmentation.apply(y)
            augment = augmentation.labels
        given = Conditions(samples.labels, augment, samples.context)
        conditions = given.to(device, non_blocking=True)
        if device.type == "cpu":  # elsewhere dropout is torch's own
            conditions = replace(conditions, seeds=self._dropout_seeds(here))
        return Batch(
            y.contiguous(memory_format=memory_format),
            self.sigma[here],
            noise.contiguous(memory_format=memory_format),
            conditions,
        )

    def _dropout_seeds(self, rows: Tensor) -> Tensor:
        """Seeds of the dropout of some samples: functions of the seed and the images seen."""
        positions = self.first + rows.numpy().astype(np.uint64)
        return torch.from_numpy(hashed(self.seed, Stream.DROPOUT, positions).view(np.int64))

    def _pixels(self, images: Images, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """What is stored of some images, or of their mirrored copies."""
        pixels = _rows(images.pixels, chosen)
        if images.mirrored is None or not mirrored.any():
            return pixels
        pixels[mirrored] = _rows(images.mirrored, chosen[mirrored])
        return pixels

    def _context(self, images: Images, rows: Tensor) -> Tensor | None:
        """The contexts of some samples; zeros for those that are hidden."""
        if images.context is None:
            return None
        context = images.context[self.chosen[rows]].float()
        if self.unlabelled is None:
            return context
        return context.masked_fill(self.unlabelled[rows][:, None, None], 0)

    def _choose_nearest(self, noise: Tensor, pixels: Tensor, rows: Tensor) -> None:
        """Replaces each noise by the nearest to its image of several draws, itself among them.

        Li et al. 2025, Immiscible Diffusion with k nearest neighbours.
        """
        images = to_unit_range(pixels.cpu())
        if not self.mirrored_copies:
            images = mirror(images, self.mirrored[rows])
        for row, image, position in zip(noise, images, rows.tolist(), strict=True):
            source = self._generator(position)
            drawn = source.standard_normal((self.candidates, *row.shape), dtype=np.float32)
            distances = (torch.from_numpy(drawn) - image).flatten(1).norm(dim=1)
            row.copy_(torch.from_numpy(drawn[int(distances.argmin())]))

    def _generator(self, position: int) -> np.random.Generator:
        """The source of a sample's noise: a function of the seed and the images seen."""
        key = (self.seed << 8) + Stream.NOISE
        bits = np.random.Philox(key=key, counter=(self.first + position) << 128)
        return np.random.Generator(bits)

    def _noise(self, rows: Tensor, shape: tuple[int, int, int], pinned: bool) -> Tensor:
        """Noise of each sample as a function of the seed and the images seen.

        It comes from a counter-based generator (Philox).
        """
        noise = torch.empty(len(rows), *shape, pin_memory=pinned)
        for row, position in zip(noise.numpy(), rows.tolist(), strict=True):
            self._generator(position).standard_normal(dtype=np.float32, out=row)
        return noise


def _rows(stored: Tensor | MappedRows, rows: Tensor) -> Tensor:
    """Some of the stored images, on the device where the data set is."""
    if isinstance(stored, Tensor) and stored.device.type == "cuda":
        rows = rows.pin_memory().to(stored.device, non_blocking=True)
    return stored[rows]


def draw(config: RunConfig, images: Images, levels: Levels, seen: int) -> Draws:
    """What is drawn for the batch that follows after ``seen`` images."""
    training = config.training
    count = training.batch_size
    source = generator(training.seed, Stream.STEP, seen)
    probability = 0.5 if training.draws.flip else 0.0
    mirrored = torch.rand(count, generator=source) < probability
    augment = training.draws.augment
    size = images.shape[1:]
    augmentation = draw_augmentation(count, size, augment, source) if augment else None
    chosen = image_indices(training.seed, len(images), seen, count)
    sigma = levels.draw(count, source)
    conditional = config.model.classes or images.context is not None
    hidden = config.model.network.label_dropout if conditional else 0.0
    unlabelled = torch.rand(count, generator=source) < hidden if hidden else None
    candidates = training.draws.noise_candidates
    copies = images.mirrored is not None
    return Draws(
        training.seed,
        seen,
        chosen,
        sigma,
        mirrored,
        augmentation,
        unlabelled,
        candidates,
        copies,
    )
