"""The loop that trains denoisers and autoencoders: steps, and what happens between them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from multistage_diffusion import distributed

__all__ = ["Event", "Session"]

RecordType = TypeVar("RecordType")
Event = tuple[int, Callable[[], None]]
"""An interval in images, 0 for never, and what happens then."""


class Session(ABC, Generic[RecordType]):
    """A run in progress. All ranks have one and call its methods.

    Args:
        length: images after which the run ends.
        batch_size: images of a step, over all ranks.
        record_images: interval of the records.
        checkpoint_images: interval of the checkpoints.
    """

    def __init__(
        self, length: int, batch_size: int, record_images: int, checkpoint_images: int
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.record_images = record_images
        self.checkpoint_images = checkpoint_images

    @property
    @abstractmethod
    def seen(self) -> int:
        """Images that the run has seen."""

    @abstractmethod
    def step(self) -> None:
        """Learns from the next batch."""

    @abstractmethod
    def record(self) -> RecordType:
        """Makes and writes the record of the steps since the last one."""

    @abstractmethod
    def save_checkpoint(self, final: bool) -> None:
        """Writes a checkpoint; ``final`` if it is the last one of this process."""

    def events(self) -> Sequence[Event]:
        """What happens between records and checkpoints."""
        return ()

    def finish(self) -> None:
        """Is called at the end of the run, not where it is interrupted."""

    def due(self, interval: int) -> bool:
        """Whether the last step reached a multiple of ``interval`` images, or the end.

        Never for an interval of 0.
        """
        if not interval:
            return False
        before = self.seen - self.batch_size
        return self.seen // interval > before // interval or self.seen >= self.length

    def records(self, should_stop: Callable[[], bool]) -> Generator[RecordType, None, None]:
        """Trains to the end of the run, or until any rank is asked to stop; yields its records."""
        while self.seen < self.length:
            self.step()
            stopping = distributed.any_rank(should_stop())
            ended = self.seen >= self.length
            if self.due(self.record_images):
                yield self.record()
            for interval, happen in self.events():
                if self.due(interval):
                    happen()
            if stopping or self.due(self.checkpoint_images):
                self.save_checkpoint(final=stopping or ended)
            if stopping and not ended:
                return
        self.finish()
