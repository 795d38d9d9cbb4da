"""The part of a denoiser that serves one stage, and how it is traced."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.preconditioning import column, matched

__all__ = ["StagePath", "input_names", "size_multiple", "trace"]

BATCH = Dim("batch", min=1, max=65536)
HEIGHT = Dim("rows", min=1, max=4096)
WIDTH = Dim("columns", min=1, max=4096)
TOKENS = Dim("tokens", min=1, max=65536)


class StagePath(nn.Module):
    """The denoiser of one stage: the encoder and that stage's decoder, without routing.

    Args:
        denoiser: of all stages.
        stage: which of them; 0 is the one of smallest noise.
    """

    def __init__(self, denoiser: NetworkDenoiser, stage: int) -> None:
        super().__init__()
        self.encoder = denoiser.network.encoder(stage)
        self.decoder = denoiser.network.decoder(stage)
        self.preconditioning = denoiser.preconditioning
        self.preconditioning.c_noise(torch.ones(1).double())  # tables are not made while tracing

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Denoises, whichever stage the noise levels are in.

        Args:
            x: noisy images, float32 ``[B, C, H, W]``.
            sigma: their noise levels, float32 ``[B]``.
            labels: classes, int64 ``[B]``; -1 for none.
            context: ``[B, tokens, context_channels]``.

        Returns:
            ``E[y | x]``, like ``x``.
        """
        p, level = self.preconditioning, sigma.double()
        conditions = Conditions(labels, context=context)
        scaled = column(p.c_in(level), x) * x
        raw = self.decoder(self.encoder(scaled, matched(p.c_noise(level), x), conditions))
        return column(p.c_skip(level), x) * x + column(p.c_out(level), x) * raw


def input_names(config: ModelConfig) -> tuple[str, ...]:
    """The inputs of a stage's file, in their order."""
    labels = ("labels",) if config.classes else ()
    context = ("context",) if config.network.context_channels else ()
    return ("x", "sigma", *labels, *context)


def size_multiple(config: ModelConfig) -> int:
    """The number of which height and width of an image must be multiples."""
    return int(2 ** (len(config.network.channel_mult) - 1))


def trace(model: Model, stage: int) -> ExportedProgram:
    """The graph of a stage for any number of images of any size that fits the levels."""
    path = StagePath(model.denoiser, stage).eval()
    names = input_names(model.config)
    shapes = {name: _dimensions(model.config)[name] for name in names}
    with torch.no_grad():
        return torch.export.export(
            path, (), kwargs=_example(model.config), dynamic_shapes=shapes, strict=False
        )


def _example(config: ModelConfig) -> dict[str, Tensor]:
    """Inputs to trace with; no two sizes are equal by chance, or they would be taken for one."""
    multiple = size_multiple(config)
    images = torch.zeros(2, config.shape[0], 3 * multiple, 5 * multiple)
    context = torch.zeros(2, 7, max(1, config.network.context_channels))
    inputs = {
        "x": images,
        "sigma": torch.ones(2),
        "labels": torch.zeros(2, dtype=torch.int64),
        "context": context,
    }
    return {name: inputs[name] for name in input_names(config)}


def _dimensions(config: ModelConfig) -> dict[str, dict[int, Any]]:
    """Which dimensions of which input may have any size."""
    multiple = size_multiple(config)
    return {
        "x": {0: BATCH, 2: multiple * HEIGHT, 3: multiple * WIDTH},
        "sigma": {0: BATCH},
        "labels": {0: BATCH},
        "context": {0: BATCH, 1: TOKENS},
    }
