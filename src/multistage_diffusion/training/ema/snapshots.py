"""Snapshots of the power-function averages of a run, and other averages made of them after training.

``RUN/averages/<images>.safetensors`` holds the averages of all tracked widths. By ``--ema-clock own`` each part of the network,
an encoder or a decoder, has a time of its own, so the factors of the snapshots are found for each.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.tensorfile import read_metadata, read_tensors, save_tensors
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.distributed.sharding import whole
from multistage_diffusion.training.ema.profiles import Array, Profiles, combine, exponent
from multistage_diffusion.training.state import State

__all__ = ["Snapshots", "keep_snapshots", "save_snapshot", "snapshots"]


def snapshots(run: Path) -> list[Path]:
    """The snapshots of a run, oldest first."""
    return sorted(path for path in run.glob("averages/*.safetensors") if path.stem.isdigit())


def save_snapshot(run: Path, state: State, config: RunConfig) -> None:
    """Writes the power-function averages as they are. All processes call it, the first one writes."""
    tensors = {name: whole(tensor) for name, tensor in state.averages.tensors()}
    if distributed.is_main_process():
        about = {
            "config": to_json(config),
            "images": state.images,
            "seen": state.averages.seen.tolist(),
        }
        save_tensors(run / "averages" / f"{state.images:012d}.safetensors", tensors, about)


def keep_snapshots(run: Path, images: int) -> None:
    """Drops the snapshots past a checkpoint: the run is about to make them again."""
    for path in snapshots(run):
        if int(path.stem) > images:
            path.unlink()


class Snapshots:
    """The snapshots of a run, read as they are needed.

    Args:
        run: the folder of the run.

    Raises:
        BadInput: if there are none, or one is damaged.
    """

    def __init__(self, run: Path) -> None:
        self.files = snapshots(run)
        if not self.files:
            raise BadInput(
                f"{run} holds no snapshots of averages; train with --posthoc-ema 0.05 0.1 makes them."
            )
        about = [read_metadata(file) for file in self.files]
        self.config = from_json(RunConfig, about[-1].get("config"))
        self.images = int(str(about[-1]["images"]))
        self.gammas = np.array([exponent(width) for width in self.config.training.posthoc_ema])
        self.seen = np.array([entry["seen"] for entry in about], dtype=np.float64)
        """Images that each encoder, then each decoder had counted: ``[files, parts]``."""

    def factors(self, part: int, gammas: Array) -> tuple[Array, Array]:
        """The factors of the averages in all files for averages of a part until the last file.

        A snapshot in which the part had counted nothing has no profile. If that is so in all, the part never changed.

        Args:
            part: number of the encoder or decoder.
            gammas: exponents of the averages to be made, ``[m]``.

        Returns:
            The factors, ``[files, widths, m]``, and how far each profile is from what is wanted, ``[m]``; see ``combine``.
        """
        ends = self.seen[:, part]
        result, known = np.zeros((len(ends), len(self.gammas), len(gammas))), ends > 0
        if not known.any():
            result[-1, 0] = 1
            return result, np.zeros(len(gammas))
        stored = Profiles(
            np.tile(self.gammas, known.sum()), np.repeat(ends[known], len(self.gammas))
        )
        found, errors = combine(stored, Profiles(gammas, np.full(len(gammas), ends[-1])))
        result[known] = found.reshape(-1, *result.shape[1:])
        return result, errors

    def average(self, gammas: Sequence[float]) -> dict[str, Tensor]:
        """Weights averaged with an exponent for each part, float32; sums are in float64, and one file is held at a time."""
        factors = [
            self.factors(part, np.array([gamma]))[0][..., 0] for part, gamma in enumerate(gammas)
        ]
        constant = self._constant()
        total: dict[str, Tensor] = {}
        for index, file in enumerate(self.files):
            for key, tensor in read_tensors(file)[0].items():
                width, name = key.split(".", 1)
                term = float(factors[self._part(name)][index, int(width)]) * tensor.double()
                total[name] = (
                    tensor if name in constant else total[name] + term if name in total else term
                )
        return {name: tensor.float() for name, tensor in total.items()}

    def _constant(self) -> set[str]:
        """What is stored with the weights but not trained."""
        with torch.device("meta"):
            return {name for name, _ in build_denoiser(self.config.model).network.named_buffers()}

    def _part(self, name: str) -> int:
        """The number of the encoder or decoder that a weight belongs to."""
        kind, number, _ = name.split(".", 2)
        return int(number) + (
            len(self.config.model.network.encoder_widths) if kind == "decoders" else 0
        )
