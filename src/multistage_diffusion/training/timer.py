"""The time that a run takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from multistage_diffusion.training.state import State

__all__ = ["Timer"]


class Timer:
    """Measures wall-clock time, and separately the part of it that training steps take.

    Args:
        state: its ``seconds`` grow with time.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.last = time.monotonic()
        self.images = state.images
        self.training = 0.0
        """Seconds of training steps since ``restart``."""

    def restart(self) -> None:
        """Begins a new measurement of speed."""
        self.training = 0.0
        self.images = self.state.images

    @property
    def images_per_second(self) -> float:
        """Speed of training since ``restart``."""
        return (self.state.images - self.images) / self.training

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """What runs inside counts as time of the run, not as time of training."""
        self.training += self._advance()
        try:
            yield
        finally:
            self._advance()

    def _advance(self) -> float:
        """Adds the time since the last call to that of the run, and returns it."""
        now = time.monotonic()
        passed = now - self.last
        self.last = now
        self.state.seconds += passed
        return passed
