"""A device without float64 gets none: everything in it stays on the CPU."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.sampling import SOLVERS, karras_grid
from multistage_diffusion.sampling.guidance import Guidance, GuidedDenoiser
from multistage_diffusion.training.learned_weight import LearnedWeight
from multistage_diffusion.training.state import RunningSums

DEVICE = torch.device("meta")
"""Stands for the device: its tensors hold nothing, but have a type."""


class WithoutFloat64(TorchDispatchMode):
    """Refuses float64 on the device, as Apple's GPUs do."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device == DEVICE:
                assert tensor.dtype != torch.float64, func
        return result


@pytest.fixture(autouse=True)
def _without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has no autocast, which float32 does not need."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def test_the_stand_in_refuses_float64() -> None:
    with WithoutFloat64(), pytest.raises(AssertionError):
        torch.zeros(1, dtype=torch.float64).to(DEVICE)


def test_a_loss_and_its_gradient_need_no_float64(denoiser: NetworkDenoiser) -> None:
    sigma = torch.tensor([0.1, 1.0, 5.0, 9.0], dtype=torch.float64)
    with WithoutFloat64():
        images = torch.zeros(4, 1, 8, 8, device=DEVICE)
        moved = denoiser.to(DEVICE)
        losses = moved.loss(images, sigma, torch.zeros_like(images))
        learned = LearnedWeight().to(DEVICE)
        learned.balance(losses, sigma).sum().backward()
        RunningSums.zeros(3, 4, DEVICE)


@pytest.mark.parametrize("name", [name for name, entry in SOLVERS.items() if not entry.adaptive])
def test_solvers_need_no_float64(denoiser: NetworkDenoiser, name: str) -> None:
    grid = karras_grid(3, 0.01, 10.0)
    with WithoutFloat64():
        start = torch.zeros(2, 1, 8, 8, device=DEVICE)
        end = SOLVERS[name](
            denoiser.to(DEVICE), start, grid, noise=lambda _: torch.zeros(2, 1, 8, 8)
        )
    assert end.dtype == torch.float32


def test_guidance_needs_no_float64(denoiser: NetworkDenoiser) -> None:
    def without_labels(x: Tensor, sigma: Tensor | float, _: Conditions) -> Tensor:
        return denoiser(x, sigma)

    denoiser.to(DEVICE)
    labels = torch.zeros(2, dtype=torch.long, device=DEVICE)
    guided = GuidedDenoiser(without_labels, labels, Guidance((2.0,)), denoiser.stages)
    with WithoutFloat64():
        guided(torch.zeros(2, 1, 8, 8, device=DEVICE), 1.0)
