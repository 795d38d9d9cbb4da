"""The time and energy that a run takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from multistage_diffusion.training.monitoring.energy import EnergyMeter
from multistage_diffusion.training.state import State

__all__ = ["Timer"]


class Timer:
    """Measures time and energy, and separately the time that training steps take.

    Args:
        state: its ``ledger`` grows with time.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.meter = EnergyMeter()
        self.last = time.monotonic()
        self.last_processor = time.process_time()
        self.images, self.macs = state.images, state.ledger.macs
        self.training = 0.0
        """Seconds of training steps since ``restart``."""

    def restart(self) -> None:
        """Begins a new measurement of speed."""
        self.training = 0.0
        self.images, self.macs = self.state.images, self.state.ledger.macs

    @property
    def images_per_second(self) -> float:
        """Speed of training since ``restart``."""
        return (self.state.images - self.images) / self.training

    @property
    def macs_per_second(self) -> float:
        """Multiply-accumulates a second of training since ``restart``."""
        return (self.state.ledger.macs - self.macs) / self.training

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """A context whose time counts for the run, but not for the speed of training."""
        self.training += self._advance()
        try:
            yield
        finally:
            self._advance()

    def _advance(self) -> float:
        """Adds what passed since the last call to the ledger, and returns the seconds."""
        now, processor = time.monotonic(), time.process_time()
        passed = now - self.last
        ledger = self.state.ledger
        ledger.seconds += passed
        ledger.processor_seconds += processor - self.last_processor
        ledger.joules += self.meter.passed()
        self.last, self.last_processor = now, processor
        return passed
