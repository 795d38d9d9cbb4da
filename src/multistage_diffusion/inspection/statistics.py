"""Mean and standard deviation of bytes, exactly, without holding the images."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.data.decoding import Pixels

__all__ = ["Histogram"]

VALUES = np.arange(256) / 127.5 - 1  # of bytes in the range networks work in


@dataclass
class Histogram:
    """How often each channel has each byte.

    Grey images count for every channel once a colour image has come.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 256), np.int64))
    """``[C, 256]``."""

    @property
    def channels(self) -> int:
        """How many channels images have as they are read."""
        return len(self.counts)

    def add(self, pixels: Pixels) -> None:
        """Adds an image, ``[H, W, C]``."""
        if pixels.shape[2] > self.channels:
            self.counts = np.repeat(self.counts, pixels.shape[2], axis=0)
        self.counts += np.stack(
            [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(pixels, 2, 0)]
        )

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each channel in -1..1, ``[C]``."""
        return self.counts @ VALUES / self.counts.sum(1)

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviation of each channel in -1..1, ``[C]``."""
        return np.array([_deviation(counts) for counts in self.counts])

    @property
    def sigma_data(self) -> float:
        """Standard deviation over all values in -1..1, as ``Images.standard_deviation``."""
        return _deviation(self.counts.sum(0))


def _deviation(counts: NDArray[np.int64]) -> float:
    mean = counts @ VALUES / counts.sum()
    return float((counts @ np.square(VALUES - mean) / counts.sum()) ** 0.5)
