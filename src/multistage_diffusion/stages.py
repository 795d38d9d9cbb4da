"""Stages: a partition of the noise levels into consecutive intervals."""

import math
from dataclasses import MISSING, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.config import Settings, read_config, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import Schedule

__all__ = ["Stages", "StagesFile"]

MOST_SHOWN = 20


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
            shown = ", ".join(f"{boundary:g}" for boundary in self.boundaries[:MOST_SHOWN])
            raise BadInput(
                f"Stage boundaries must be positive, finite and increasing, not [{shown}]."
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
        return Stages(StagesFile.load(Path(path)).boundaries)


@dataclass(frozen=True, kw_only=True)
class StageCurves(Settings):
    """What stages were found from, at increasing noise levels."""

    sigma: tuple[float, ...] = setting((), above=0)
    u: tuple[float, ...] = ()
    """The quantiles of the levels."""
    pairs: int = 0
    low_noise_agreement: tuple[float, ...] = ()
    high_noise_agreement: tuple[float, ...] = ()
    cosines: tuple[tuple[float, ...], ...] = ()
    """Between the gradients of the levels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.sigma)
        columns = (self.u, self.low_noise_agreement, self.high_noise_agreement, self.cosines)
        if any(len(column) not in (0, count) for column in (*columns, *self.cosines)):
            raise BadInput("curves need a value for each of their levels")
        if any(low >= high for low, high in pairwise(self.sigma)) or count == 1:
            raise BadInput("the levels of curves must increase")


@dataclass(frozen=True, kw_only=True)
class StagesData(Settings):
    """The data that stages were found for."""

    fingerprint: str
    deviation: float | None = setting(None, above=0)
    """Standard deviation of latents."""
    images: int = setting(0, at_least=0)
    shape: tuple[int, int, int] = setting((1, 1, 1), at_least=1, at_most=65_536)


@dataclass(frozen=True, kw_only=True)
class StagesFile(Settings):
    """The content of a stages file, as far as it is read; only boundaries are needed."""

    boundaries: tuple[float, ...] = setting(MISSING, above=0)
    ci95: tuple[tuple[float, float], ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    data: StagesData | None = None
    curves: StageCurves = field(default_factory=StageCurves)

    def __post_init__(self) -> None:
        super().__post_init__()
        Stages(self.boundaries)

    @property
    def alpha(self) -> float | None:
        """The mean agreement that stages had to keep, if they were found by it."""
        value = self.parameters.get("alpha")
        return float(value) if isinstance(value, int | float) else None

    @staticmethod
    def load(path: Path) -> "StagesFile":
        """Reads a file.

        Raises:
            BadInput: if it is missing or is no stages file.
        """
        return read_config(StagesFile, path)
