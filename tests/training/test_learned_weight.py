"""The weight of the loss that is learned for each noise level."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.files import read_json
from multistage_diffusion.model import load_model
from multistage_diffusion.report import render
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_tensors
from multistage_diffusion.training import train
from multistage_diffusion.training.learned_weight import LearnedWeight
from tests.conftest import run_on

LEVELS = torch.logspace(-2, 2, 400, dtype=torch.float64)


def learned(steps: int, losses: torch.Tensor) -> LearnedWeight:
    uncertainty = LearnedWeight()
    optimizer = torch.optim.Adam(uncertainty.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        uncertainty.balance(losses, LEVELS).mean().backward()
        optimizer.step()
    return uncertainty


def test_the_optimum_is_the_logarithm_of_the_loss_and_the_weight_its_inverse() -> None:
    """A loss that falls from 1 to 0.01 within a decade, as weighted losses do."""
    losses = (0.01 + 1 / (1 + LEVELS**2)).float()
    u = learned(1500, losses)(LEVELS).detach()
    assert float((u - losses.log()).abs().max()) < 0.05
    assert float(((-u).exp() * losses - 1).abs().max()) < 0.05


def test_a_random_loss_is_met_by_the_logarithm_of_its_mean() -> None:
    torch.manual_seed(0)
    losses = 0.3 * torch.distributions.Exponential(torch.ones(len(LEVELS))).sample()
    u = learned(1500, losses).forward(LEVELS).detach()
    assert float(((-u).exp() * losses).mean()) == pytest.approx(1, abs=0.02)


def test_at_first_it_changes_nothing() -> None:
    losses = torch.rand(len(LEVELS))
    assert torch.equal(LearnedWeight().balance(losses, LEVELS), losses)


def test_the_gradient_of_the_network_is_that_of_the_loss_over_its_expectation() -> None:
    uncertainty = learned(20, torch.full((len(LEVELS),), 0.2))
    losses = torch.rand(len(LEVELS), requires_grad=True)
    (gradient,) = torch.autograd.grad(uncertainty.balance(losses, LEVELS).sum(), losses)
    torch.testing.assert_close(gradient, (-uncertainty(LEVELS)).exp().detach())
    assert float((gradient - 1).abs().min()) > 0.1


def test_the_first_step_of_the_network_is_that_of_the_plain_loss(
    few_digits: Images, tmp_path: Path
) -> None:
    plain, learned = (
        list(train(run_on(few_digits, images=8, learned_weight=on), few_digits, tmp_path / str(on)))
        for on in (False, True)
    )
    assert plain[0].loss == learned[0].loss
    assert plain[0].gradient_norm == learned[0].gradient_norm
    first, second = (
        load_model(tmp_path / str(on) / "model.safetensors").denoiser.state_dict()
        for on in (False, True)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_run_learns_it_and_keeps_it_in_checkpoints_alone(
    few_digits: Images, tmp_path: Path
) -> None:
    list(train(run_on(few_digits, learned_weight=True, clip_norm=1.0), few_digits, tmp_path))
    state, _ = read_tensors(Run(tmp_path).checkpoints()[-1] / "training.safetensors")
    assert state["net.uncertainty"].abs().min() > 0
    assert float(state["step.uncertainty"]) == 3
    model, _ = read_tensors(tmp_path / "model.safetensors")
    assert not [name for name in model if "uncertainty" in name]


def test_the_losses_that_are_recorded_stay_the_plain_ones(
    few_digits: Images, tmp_path: Path
) -> None:
    """With the network frozen the weight learns on, and what is recorded is the same as without
    it."""
    still = {"freeze": ("0:",) * 4, "images": 80}
    plain, learned = (
        list(train(run_on(few_digits, learned_weight=on, **still), few_digits, tmp_path / str(on)))
        for on in (False, True)
    )
    assert [r.loss for r in plain] == [r.loss for r in learned]
    assert [r.probe_loss for r in plain] == [r.probe_loss for r in learned]
    curve = read_json(tmp_path / "True" / "uncertainty.json")
    assert min(curve["loss"]) < 0.99 or max(curve["loss"]) > 1.01


@pytest.mark.slow
def test_in_training_the_curve_comes_near_the_losses(few_digits: Images, tmp_path: Path) -> None:
    """With the network as it is at the start, whose weighted loss is about 1, 2 and 3 in the
    stages."""
    config = run_on(
        few_digits,
        freeze=("0:",) * 4,
        learning_rate=3e-3,
        images=2400,
        record_images=2400,
        checkpoint_images=2400,
        learned_weight=True,
    )
    list(
        train(
            replace(
                config, training=replace_settings(config.training, shares="uniform", flip=False)
            ),
            few_digits,
            tmp_path,
        )
    )
    written = read_json(tmp_path / "uncertainty.json")
    sigma, losses = (
        torch.tensor(written["probe"][name], dtype=torch.float64) for name in ("sigma", "loss")
    )
    curve = torch.tensor(written["loss"], dtype=torch.float64)
    nearest = (torch.tensor(written["sigma"]).log() - sigma.log()[:, None]).abs().argmin(1)
    relative = losses / curve[nearest]
    assert [float(part.mean()) for part in relative.split(64)] == pytest.approx([1, 1, 1], abs=0.15)
    assert written["images"] == 2400


def test_the_report_shows_the_curve_during_the_run(few_digits: Images, tmp_path: Path) -> None:
    config = run_on(few_digits, learned_weight=True)
    running = train(config, few_digits, tmp_path)
    next(running)
    page = render([tmp_path])
    running.close()
    assert "as training had learned it at 8 images" in page
    assert "exp u(sigma)" in page
    (tmp_path / "uncertainty.json").unlink()
    assert "Learned weight" not in render([tmp_path])


def test_a_loss_that_is_not_finite_does_not_reach_it(few_digits: Images, tmp_path: Path) -> None:
    """Not even where no part of the network has a gradient that would tell."""
    values = few_digits.pixels[:].float() / 127.5 - 1
    values[7] = torch.nan
    bad = Images(values)
    records = list(
        train(run_on(bad, images=80, learned_weight=True, freeze=("0:",) * 4), bad, tmp_path)
    )
    assert sum(record.skipped for record in records) in (1, 2)
    state, _ = read_tensors(Run(tmp_path).checkpoints()[-1] / "training.safetensors")
    assert state["net.uncertainty"].isfinite().all()
