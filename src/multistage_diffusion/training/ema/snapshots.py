"""Snapshots of the power-function averages of a run, and other averages made from them.

``RUN/averages/<images>.safetensors`` holds the averages of all tracked widths. With
``--ema-clock own`` each part of the network, an encoder or a decoder, has its own time, so the
factors of the snapshots are found separately for each.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.config import Settings, from_json, setting, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_metadata, read_tensors, save_tensors
from multistage_diffusion.training.config import RunConfig, read_run_config
from multistage_diffusion.training.distributed.sharding import is_sharded
from multistage_diffusion.training.distributed.shards import (
    begin_to_save,
    join_shards,
    saved,
    shard_files,
)
from multistage_diffusion.training.ema.profiles import (
    WIDEST_AVERAGE,
    Array,
    Profiles,
    combine,
    exponent,
)
from multistage_diffusion.training.rates import part_names
from multistage_diffusion.training.state import State

__all__ = ["Snapshots", "drop_snapshots_after", "save_snapshot"]

WIDTHS = np.geomspace(0.005, WIDEST_AVERAGE, 80)


def save_snapshot(run: Run, state: State, config: RunConfig) -> None:
    """Writes the power-function averages as they are. All ranks call it."""
    metadata: dict[str, object] = {
        "config": to_json(config),
        "images": state.images,
        "seen": state.averages.seen.tolist(),
    }
    path, tensors = run.snapshot(state.images), dict(state.averages.tensors())
    if is_sharded(state.averages.main.network):
        _save_sharded(path, tensors, metadata)
    elif distributed.is_main_process():
        save_tensors(path, tensors, metadata)


def _save_sharded(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]
) -> None:
    """Each rank writes its rows, and rank 0 joins them, one tensor at a time."""
    folder = path.with_name(f".{path.stem}")
    if distributed.is_main_process():  # what a killed process may have left
        shutil.rmtree(folder, ignore_errors=True)
    distributed.barrier()
    saved(begin_to_save(folder, tensors), folder)
    if distributed.is_main_process():
        join_shards(path, shard_files(folder, 1, of=1), metadata)
        shutil.rmtree(folder)


def drop_snapshots_after(run: Run, images: int) -> None:
    """Removes the snapshots past a checkpoint: the run is about to write them again."""
    for path in run.snapshots():
        if int(path.stem) > images:
            path.unlink()


@dataclass(frozen=True, kw_only=True)
class _Metadata(Settings):
    """The metadata of a snapshot."""

    config: dict[str, Any]
    images: int = setting(MISSING, at_least=0)
    seen: tuple[int, ...] = setting(MISSING, at_least=0)


class Snapshots:
    """The snapshots of a run, read when they are needed.

    Args:
        run: the run.

    Raises:
        BadInput: if there are none, or one is damaged.
    """

    def __init__(self, run: Run) -> None:
        self.files = run.snapshots()
        if not self.files:
            raise BadInput(
                f"{run.path} holds no snapshots of averages; train with --posthoc-ema 0.05 0.1 "
                "makes them."
            )
        metadata = [from_json(_Metadata, read_metadata(file), str(file)) for file in self.files]
        self.config = read_run_config(metadata[-1].config, str(self.files[-1]))
        self.images = metadata[-1].images
        widths = self.config.training.averaging.posthoc_ema
        self.gammas = np.array([exponent(width) for width in widths])
        parts = len(part_names(self.config.model.network))
        if not self.gammas.size or any(len(entry.seen) != parts for entry in metadata):
            raise BadInput(
                f"The snapshots in {self.files[0].parent} are not all of this run: remove those "
                "that were copied there."
            )
        self.seen = np.array([entry.seen for entry in metadata], dtype=np.float64)
        """Images that each encoder, then each decoder had counted: ``[files, parts]``."""

    def factors(self, part: int, gammas: Array) -> tuple[Array, Array]:
        """The factors of all snapshots for averages of a part until the last snapshot.

        A snapshot in which the part had counted nothing has no profile. If that is so in all, the
        part never changed.

        Args:
            part: index of the encoder or decoder.
            gammas: exponents of the averages to be made, ``[m]``.

        Returns:
            The factors, ``[files, widths, m]``, and how far each profile is from the wanted one,
            ``[m]``; see ``combine``.
        """
        ends = self.seen[:, part]
        known = ends > 0
        result = np.zeros((len(ends), len(self.gammas), len(gammas)))
        if not known.any():
            result[-1, 0] = 1
            return result, np.zeros(len(gammas))
        stored_gammas = np.tile(self.gammas, known.sum())
        stored_ends = np.repeat(ends[known], len(self.gammas))
        wanted = Profiles(gammas, np.full(len(gammas), ends[-1]))
        found, errors = combine(Profiles(stored_gammas, stored_ends), wanted)
        result[known] = found.reshape(-1, *result.shape[1:])
        return result, errors

    def errors(self, gammas: Sequence[float]) -> list[float]:
        """How far averages with an exponent for each part are from the wanted ones, ``[parts]``."""
        wanted = [np.array([gamma]) for gamma in gammas]
        return [float(self.factors(part, gamma)[1][0]) for part, gamma in enumerate(wanted)]

    def accurate_widths(self, error: float) -> list[tuple[float, float]]:
        """Ranges of relative widths that are accurate up to an error in every part.

        The widths that training kept always are.
        """
        widths = np.union1d(WIDTHS, self.config.training.averaging.posthoc_ema)
        gammas = np.array([exponent(width) for width in widths])
        errors = [self.factors(part, gammas)[1] for part in range(self.seen.shape[1])]
        accurate = np.flatnonzero(np.max(errors, axis=0) <= error)
        gaps = np.flatnonzero(np.diff(accurate) > 1) + 1
        ranges = (widths[indices] for indices in np.split(accurate, gaps))
        return [(float(found[0]), float(found[-1])) for found in ranges]

    def average(self, gammas: Sequence[float]) -> dict[str, Tensor]:
        """Weights averaged with an exponent for each part, float32.

        Sums are in float64, and one file is held in memory at a time.
        """
        factors = [self._factors_of_one(part, gamma) for part, gamma in enumerate(gammas)]
        constant = self._constant()
        total = dict[str, Tensor]()
        for index, file in enumerate(self.files):
            for key, tensor in read_tensors(file)[0].items():
                width, name = key.split(".", 1)
                if name in constant:
                    total[name] = tensor
                    continue
                term = float(factors[self._part(name)][index, int(width)]) * tensor.double()
                total[name] = total[name] + term if name in total else term
        return {name: tensor.float() for name, tensor in total.items()}

    def _factors_of_one(self, part: int, gamma: float) -> Array:
        factors, _ = self.factors(part, np.array([gamma]))
        return factors[..., 0]

    def _constant(self) -> set[str]:
        """Names of what is stored with the weights but not trained."""
        with torch.device("meta"):
            network = build_denoiser(self.config.model).network
        return {name for name, _ in network.named_buffers()}

    def _part(self, name: str) -> int:
        """The index of the encoder or decoder that a weight belongs to."""
        kind, number, _ = name.split(".", 2)
        encoders = len(self.config.model.network.encoder_widths)
        return int(number) + (encoders if kind == "decoders" else 0)
