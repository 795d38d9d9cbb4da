"""Stages: a partition of the noise levels into consecutive intervals."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import Schedule

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """Stage k is the interval of noise levels ``[boundaries[k-1], boundaries[k])``.

    Without boundaries there is one stage.

    Stage 0 holds the smallest noise. The paper counts from 1.

    Raises:
        BadInput: if the boundaries are not positive, finite and strictly increasing.
    """

    boundaries: tuple[float, ...] = ()
    """Increasing noise levels sigma."""

    def __post_init__(self) -> None:
        edges = (0.0, *self.boundaries, math.inf)
        if not all(low < high for low, high in pairwise(edges)):
            raise BadInput(
                "Stage boundaries must be positive, finite and increasing, not "
                f"{list(self.boundaries)}."
            )

    def __len__(self) -> int:
        return len(self.boundaries) + 1

    def index(self, sigma: Tensor) -> Tensor:
        """Stage of each noise level: int64, the shape and device of ``sigma``."""
        edges = torch.tensor(self.boundaries, dtype=torch.float64).to(
            device=sigma.device, dtype=sigma.dtype
        )
        return torch.bucketize(sigma.contiguous(), edges, right=True)

    def bounds(self, stage: int) -> tuple[float, float]:
        """The interval of a stage; the first begins at 0, the last ends at infinity."""
        edges = (0.0, *self.boundaries, math.inf)
        return edges[stage], edges[stage + 1]

    def share(self, schedule: Schedule, stage: int) -> float:
        """The probability that a level drawn from ``schedule`` falls into ``stage``."""
        low, high = self.bounds(stage)
        above = 1.0 if math.isinf(high) else float(schedule.u(high))
        return above - (float(schedule.u(low)) if low > 0 else 0.0)

    @staticmethod
    def load(path: Path | str) -> "Stages":
        """Reads the boundaries of a stages file.

        Raises:
            BadInput: if the file is missing, is no stages file, or its boundaries are out of order.
        """
        try:
            boundaries = json.loads(Path(path).read_text())["boundaries"]
            return Stages(tuple(float(b) for b in boundaries))
        except OSError as error:
            raise BadInput(f"Cannot read the stages file {path}: {error.strerror}.") from error
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is no stages file: it needs a JSON object with a list 'boundaries'."
            ) from error
        except ValueError as error:
            raise BadInput(f"{path}: {error}") from error
