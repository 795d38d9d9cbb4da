"""Batches that are read ahead in threads, so that a step does not wait for images and noise.

A batch is a function of the configuration and the images seen, so reading ahead changes no number.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.parallel import cores
from multistage_diffusion.training.batches.batch import Draws, Samples, draw
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.config import RunConfig

__all__ = ["BatchReader"]

MOST_AHEAD = 4
DEVICE_MEMORY_SHARE = 0.25  # of the free memory of a GPU that a data set may take


class BatchReader:
    """Reads a rank's part of each batch.

    Args:
        config: the run.
        images: the data set; a small one is moved to a GPU.
        levels: how noise levels are drawn.
        parts: which samples of a batch to read, in how many parts.
        device: where they are computed.
        ahead: how many batches are read ahead, each by a thread; 0 for none. By default some,
            unless images are in memory and steps keep the CPU busy anyway.
    """

    def __init__(
        self,
        config: RunConfig,
        images: Images,
        levels: Levels,
        parts: Callable[[Draws], Sequence[Tensor]],
        device: torch.device,
        ahead: int | None = None,
    ) -> None:
        self.config = config
        self.images = _near(images, device)
        self.levels = levels
        self.parts = parts
        self.device = device
        self.ahead = _default_ahead(images, device) if ahead is None else ahead
        self.pending = dict[int, Future[tuple[Draws, list[Samples]]]]()
        # Threads begin with the first GPU as the current one.
        choose = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        self.pool = ThreadPoolExecutor(max(1, self.ahead), "batch-reader", choose)

    def __call__(self, seen: int) -> tuple[Draws, list[Samples]]:
        """What is drawn for the batch after ``seen`` images, and each part of its samples.

        An error in a thread is raised here.
        """
        if not self.ahead:
            return self._read(seen)
        self.pending = {
            position: self.pending.get(position) or self.pool.submit(self._read, position)
            for position in self._positions(seen)
        }
        return self.pending.pop(seen).result()

    def _positions(self, seen: int) -> range:
        """Where the batches begin that are to be read now, in images seen."""
        step = self.config.training.batch_size
        end = max(self.config.training.images, seen + step)
        return range(seen, min(seen + (self.ahead + 1) * step, end), step)

    def _read(self, seen: int) -> tuple[Draws, list[Samples]]:
        draws = draw(self.config, self.images, self.levels, seen)
        conditional = self.config.model.classes > 0
        samples = [
            draws.read(rows, self.images, conditional, self.device) for rows in self.parts(draws)
        ]
        return draws, samples


def _default_ahead(images: Images, device: torch.device) -> int:
    in_memory = isinstance(images.pixels, Tensor)
    return 0 if device.type == "cpu" and in_memory else min(MOST_AHEAD, cores())


def _near(images: Images, device: torch.device) -> Images:
    """The images with their pixels on the device, if that is a GPU with room for them."""
    pixels = images.pixels
    if device.type != "cuda" or not isinstance(pixels, Tensor):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    mirrored = images.mirrored if isinstance(images.mirrored, Tensor) else None
    bytes_needed = pixels.nbytes + (0 if mirrored is None else mirrored.nbytes)
    if bytes_needed > DEVICE_MEMORY_SHARE * free:
        return images
    copies = None if mirrored is None else mirrored.to(device)
    return replace(images, pixels=pixels.to(device), mirrored=copies)
