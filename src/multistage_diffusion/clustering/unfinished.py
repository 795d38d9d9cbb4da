"""Sums of an unfinished clustering, kept in a file so that it can be continued."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from multistage_diffusion import distributed
from multistage_diffusion.clustering.sums import Sums

__all__ = ["UnfinishedSums"]

MAY_CHANGE = ("pairs", "ci_width", "most_pairs")  # when the computation is continued


class UnfinishedSums:
    """The file of the sums, which rank 0 reads and writes.

    Args:
        path: the file.
        identity: what they are sums of; see ``result.identity``. The number of pairs may differ
            when the computation is continued.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        parameters = identity["parameters"].items()
        fixed = {name: value for name, value in parameters if name not in MAY_CHANGE}
        self.path = path
        self.identity = {**identity, "parameters": fixed}

    def load(self) -> Sums:
        """The sums so far, on every rank.

        Raises:
            BadInput: if the file holds sums of something else.
        """
        main = distributed.is_main_process()
        return distributed.broadcast(Sums.load(self.path, self.identity) if main else Sums())

    def saved(self, steps: Iterable[int], sums: Sums) -> Iterator[int]:
        """Passes on the steps of a computation, and saves the sums after each."""
        for step in steps:
            if distributed.is_main_process():
                sums.save(self.path, self.identity)
            yield step

    def remove(self) -> None:
        """Removes the file, once the computation is finished."""
        self.path.unlink(missing_ok=True)
