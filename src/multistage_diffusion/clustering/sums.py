"""Agreement summed over pairs, in groups for the bootstrap.

Pair k belongs to group ``k mod GROUPS``, and only the sums of the groups are kept: memory does not
grow with the number of pairs, and an interrupted computation continues from its sums. The
bootstrap draws groups, whose means are independent and equally distributed as the pairs are.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multistage_diffusion.clustering.curves import Agreement
from multistage_diffusion.errors import BadInput
from multistage_diffusion.tensorfile import read_tensors, save_tensors

__all__ = ["GROUPS", "Sums"]

Floats = NDArray[np.float64]
GROUPS = 64


@dataclass
class Sums:
    """Sums over the pairs of each group, and how many pairs there are."""

    pairs: Floats = field(default_factory=lambda: np.zeros(GROUPS))
    """Pairs in each group, ``[GROUPS]``."""
    curves: dict[str, Floats] = field(default_factory=dict)
    """The fields of ``Agreement`` by name, summed: ``[GROUPS, ...]``."""

    @property
    def count(self) -> int:
        """Number of pairs."""
        return int(self.pairs.sum())

    def add(self, part: Agreement) -> None:
        """Adds the next pairs."""
        group = np.arange(self.count, self.count + len(part.low)) % GROUPS
        np.add.at(self.pairs, group, 1)
        for name, values in vars(part).items():
            if values is not None:
                held = self.curves.setdefault(name, np.zeros((GROUPS, *values.shape[1:])))
                np.add.at(held, group, values)

    def mean(self, weight: Floats | None = None) -> Agreement:
        """The mean over pairs, each group counted ``weight`` times, ``[GROUPS]``."""
        weight = np.ones_like(self.pairs) if weight is None else weight
        pairs = weight @ self.pairs
        return Agreement(
            **{
                name: np.tensordot(weight, values, 1) / pairs
                for name, values in self.curves.items()
            }
        )

    def replicates(self, seed: int, count: int) -> Floats:
        """Weights of ``count`` bootstrap replicates, ``[count, GROUPS]``.

        A replicate draws as many groups as there are with pairs.
        """
        filled = self.pairs > 0
        weights = np.zeros((count, len(filled)))
        weights[:, filled] = np.random.default_rng(seed).multinomial(
            filled.sum(), np.full(filled.sum(), 1 / filled.sum()), count
        )
        return weights

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes the sums and what they are sums of."""
        arrays = {"pairs": self.pairs, **self.curves}
        save_tensors(
            path,
            {name: torch.from_numpy(array) for name, array in arrays.items()},
            {"identity": identity},
        )

    @staticmethod
    def load(path: Path, identity: dict[str, Any]) -> "Sums":
        """Reads sums; without a file they are empty.

        Raises:
            BadInput: if the file is damaged, or holds sums of something else.
        """
        if not path.exists():
            return Sums()
        tensors, metadata = read_tensors(path)
        if metadata.get("identity") != identity:
            raise BadInput(
                f"{path} holds partial sums of other data or settings; finish that command or "
                "remove the file."
            )
        arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        pairs = arrays.pop("pairs", np.empty(0))
        whole = all(len(array) == GROUPS == len(pairs) for array in arrays.values())
        if not whole or not set(arrays) <= {entry.name for entry in fields(Agreement)}:
            raise BadInput(f"{path} is invalid; remove it to begin again.")
        return Sums(pairs, arrays)
