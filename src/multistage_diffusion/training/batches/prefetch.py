"""Batches that are read ahead, in threads, so that a step need not wait for images and noise.

A batch is a function of the configuration and the images seen, so reading ahead changes no number.
"""

from collections.abc import Sequence
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

__all__ = ["Feed"]

MOST_AHEAD = 4
SHARE_OF_DEVICE = 0.25  # of the free memory of a GPU that a data set may take


class Feed:
    """What a process needs for its part of each batch.

    Args:
        config: the run.
        images: the data set; a small one is put on a GPU.
        levels: how noise levels are drawn.
        ranges: the samples of a batch that this process computes, first and last.
        device: where they are computed.
        ahead: how many batches are read ahead, each by a thread; 0 for none. By default some, unless
            images lie in memory and steps keep the processor busy anyway.
    """

    def __init__(
        self,
        config: RunConfig,
        images: Images,
        levels: Levels,
        ranges: Sequence[tuple[int, int]],
        device: torch.device,
        ahead: int | None = None,
    ) -> None:
        self.config, self.levels, self.ranges, self.device = config, levels, ranges, device
        self.images = _near(images, device)
        self.ahead = _ahead(images, device) if ahead is None else ahead
        self.coming = dict[int, Future[tuple[Draws, list[Samples]]]]()
        chosen = (
            partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        )  # threads begin with the first GPU
        self.pool = ThreadPoolExecutor(max(1, self.ahead), "feed", chosen)

    def __call__(self, seen: int) -> tuple[Draws, list[Samples]]:
        """The batch that follows after ``seen`` images: all that is drawn for it, and each range of its samples.

        An error in a thread is raised here.
        """
        if not self.ahead:
            return self._read(seen)
        step, end = self.config.training.batch_size, self.config.training.images
        positions = range(seen, min(seen + (self.ahead + 1) * step, max(end, seen + step)), step)
        self.coming = {
            at: self.coming.get(at) or self.pool.submit(self._read, at) for at in positions
        }
        return self.coming.pop(seen).result()

    def _read(self, seen: int) -> tuple[Draws, list[Samples]]:
        draws, conditional = (
            draw(self.config, self.images, self.levels, seen),
            self.config.model.classes > 0,
        )
        return draws, [
            draws.read(start, stop, self.images, conditional, self.device)
            for start, stop in self.ranges
        ]


def _ahead(images: Images, device: torch.device) -> int:
    return (
        0
        if device.type == "cpu" and isinstance(images.pixels, Tensor)
        else min(MOST_AHEAD, cores())
    )


def _near(images: Images, device: torch.device) -> Images:
    """The images with their pixels on the device, if that is a GPU and they are few enough."""
    pixels = images.pixels
    if device.type != "cuda" or not isinstance(pixels, Tensor):
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return (
        replace(images, pixels=pixels.to(device))
        if pixels.nbytes <= SHARE_OF_DEVICE * free
        else images
    )
