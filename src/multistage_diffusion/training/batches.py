"""The batches of a run, as functions of its configuration and the images seen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.config import RunConfig
from multistage_diffusion.data.augment import augment
from multistage_diffusion.data.images import Images, to_unit_range
from multistage_diffusion.training.draws import Levels, Stream, generator, image_indices

__all__ = ["Batch", "draw_batch"]


@dataclass(frozen=True)
class Batch:
    """What a step of training sees."""

    y: Tensor
    """Images, -1 to 1, ``[B, C, H, W]``."""
    sigma: Tensor
    """Noise levels, float64 ``[B]``, on the CPU."""
    noise: Tensor
    """Unit Gaussian noise like ``y``."""
    labels: Tensor | None
    """Classes, int64 ``[B]``."""
    augment: Tensor | None
    """What was done to the images, ``[B, 9]``."""

    def __len__(self) -> int:
        return len(self.y)

    def part(self, start: int, stop: int, device: torch.device, layout: torch.memory_format) -> "Batch":
        """Some of the samples, on a device but for their levels, and images in a layout of memory."""
        here = slice(start, stop)
        y, noise = (tensor[here].to(device, memory_format=layout) for tensor in (self.y, self.noise))
        labels, done_to = (None if tensor is None else tensor[here].to(device) for tensor in (self.labels, self.augment))
        return Batch(y, self.sigma[here], noise, labels, done_to)


def draw_batch(config: RunConfig, images: Images, levels: Levels, seen: int) -> Batch:
    """The batch that follows after ``seen`` images; the same in every process."""
    recipe = config.training
    draw = generator(recipe.seed, Stream.STEP, seen)
    chosen = image_indices(recipe.seed, len(images), seen, recipe.batch_size)
    y = to_unit_range(images.pixels[chosen])
    if recipe.flip:
        mirrored = torch.rand(len(y), 1, 1, 1, generator=draw) < 0.5
        y = torch.where(mirrored, y.flip(3), y)
    y, done_to = augment(y, recipe.augment, draw) if recipe.augment else (y, None)
    sigma, noise = levels.draw(len(y), draw), torch.randn(y.shape, generator=draw)
    labels = images.labels[chosen] if config.model.classes and images.labels is not None else None
    return Batch(y, sigma, noise, labels, done_to)
