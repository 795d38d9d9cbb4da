"""Muon for matrices beside Adam for the rest."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.config import TrainingConfig
from multistage_diffusion.training.distributed.config import ExecutionConfig
from multistage_diffusion.training.optimization import OptimizationConfig, make_optimizer

RATE = 0.01
MUON = OptimizationConfig(optimizer="muon", weight_decay=0.1)


def layer() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 8, 3)


def optimizer_of(module: nn.Module, config: OptimizationConfig = MUON) -> torch.optim.Optimizer:
    optimizer = make_optimizer(config, [module], None)
    optimizer.param_groups[0]["lr"] = RATE
    return optimizer


def learn(
    module: nn.Conv2d, optimizer: torch.optim.Optimizer, seeds: range = range(4), scale: float = 1
) -> None:
    """Steps with random gradients."""
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            gradient = scale * torch.randn(parameter.shape, generator=source)
            parameter.grad = gradient.to(memory_format=_format(parameter))
        optimizer.step()


def _format(tensor: torch.Tensor) -> torch.memory_format:
    return torch.contiguous_format if tensor.is_contiguous() else torch.channels_last


def test_a_convolution_learns_as_torchs_muon_and_its_bias_as_adamw() -> None:
    ours, theirs, adam = layer(), layer(), layer()
    learn(ours, optimizer_of(ours))
    matrix = nn.Parameter(theirs.weight.detach().flatten(1))
    muon = torch.optim.Muon([matrix], RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(4):
        source = torch.Generator().manual_seed(seed)
        matrix.grad = torch.randn(theirs.weight.shape, generator=source).flatten(1)
        muon.step()
    assert torch.equal(ours.weight.flatten(1), matrix)
    learn(adam, optimizer_of(adam, replace(MUON, optimizer="adamw")))
    assert ours.bias is not None
    assert adam.bias is not None
    assert torch.equal(ours.bias, adam.bias)


def test_the_step_is_nearly_orthogonal_and_forgets_the_size_of_the_gradient() -> None:
    """Newton-Schulz's iteration leaves singular values between about 0.7 and 1.2."""
    steps = []
    for scale in (1, 2**-10):
        module = layer()
        before = module.weight.detach().clone()
        learn(module, optimizer_of(module, replace(MUON, weight_decay=0)), range(1), scale)
        steps.append((before - module.weight.detach()).flatten(1))
    assert torch.equal(steps[0], steps[1])
    expected = RATE * 0.2 * math.sqrt(54)
    values = torch.linalg.svdvals(steps[0]) / expected
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.5


def test_channels_last_weights_learn_the_same() -> None:
    plain, other = layer(), layer()
    other.weight.data = other.weight.data.to(memory_format=torch.channels_last)
    optimizers = [optimizer_of(module) for module in (plain, other)]
    for module, optimizer in zip((plain, other), optimizers, strict=True):
        learn(module, optimizer)
    assert not other.weight.is_contiguous()
    assert torch.equal(plain.weight, other.weight)


def test_a_step_that_failed_changes_nothing() -> None:
    module = layer()
    optimizer = optimizer_of(module)
    learn(module, optimizer)
    weights = [p.detach().clone() for p in module.parameters()]
    momentum = optimizer.state[module.weight]["momentum_buffer"].clone()
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    learn(module, optimizer, scale=math.nan)
    assert all(torch.equal(*pair) for pair in zip(weights, module.parameters(), strict=True))
    assert torch.equal(optimizer.state[module.weight]["momentum_buffer"], momentum)
    assert float(optimizer.state[module.weight]["step"]) == 4


def test_what_it_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="without --shard"):
        TrainingConfig(optimization=MUON, execution=ExecutionConfig(shard=True))
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(BadInput, match=r"needs torch 2\.9"):
        optimizer_of(layer())
