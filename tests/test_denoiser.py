"""Routing by stage, preconditionings and the loss."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import NetworkDenoiser, set_compute_dtype
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks.layers import GroupNorm
from multistage_diffusion.preconditioning import (
    PRECONDITIONINGS,
    expected_deviation,
    weighted_error,
)
from multistage_diffusion.sampling import SOLVERS
from multistage_diffusion.sampling.grids import GRIDS
from multistage_diffusion.schedule import DDPM, VP, Flow, LogNormal
from multistage_diffusion.stages import Stages
from tests.conftest import MODEL, disturb

SIGMA = torch.logspace(-2.5, 1.9, 23, dtype=torch.float64)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Six samples whose stages are out of order."""
    return torch.randn(6, 1, 8, 8), torch.tensor([5.0, 0.1, 1.0, 0.02, 80.0, 0.5])


def test_a_mixed_batch_equals_its_samples_one_by_one(
    denoiser: NetworkDenoiser, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, sigma = batch
    alone = torch.cat([denoiser(x[k : k + 1], sigma[k : k + 1]) for k in range(6)])
    torch.testing.assert_close(denoiser(x, sigma), alone, rtol=1e-5, atol=1e-4)


def test_the_order_of_a_batch_does_not_matter(
    denoiser: NetworkDenoiser, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, sigma = batch
    order = torch.randperm(6)
    torch.testing.assert_close(
        denoiser(x[order], sigma[order]), denoiser(x, sigma)[order], rtol=1e-5, atol=1e-4
    )


def test_a_scalar_level_serves_the_whole_batch(denoiser: NetworkDenoiser) -> None:
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(denoiser(x, 1.3), denoiser(x, torch.full((3,), 1.3, dtype=torch.float64)))


def test_labels_travel_with_their_samples(
    model_config: ModelConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    denoiser = build_denoiser(replace(model_config, classes=6)).eval()
    disturb(denoiser.network.decoders[1])
    x, sigma = batch
    labels = torch.arange(6)
    alone = torch.cat(
        [denoiser(x[k : k + 1], sigma[k : k + 1], Conditions(labels[k : k + 1])) for k in range(6)]
    )
    torch.testing.assert_close(denoiser(x, sigma, Conditions(labels)), alone, rtol=1e-5, atol=1e-4)


def test_each_stage_uses_its_decoder_alone(
    denoiser: NetworkDenoiser, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, sigma = batch
    before = denoiser(x, sigma)
    disturb(denoiser.network.decoders[1])
    changed = (denoiser(x, sigma) != before).flatten(1).any(1)
    assert changed.tolist() == (denoiser.stages.index(sigma) == 1).tolist()


def test_gradients_flow_through_the_routing(
    denoiser: NetworkDenoiser, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, sigma = batch
    denoiser.loss(x, sigma, torch.randn_like(x)).sum().backward()
    assert all(p.grad is not None for p in denoiser.parameters())


def test_a_mixed_batch_has_the_gradient_of_its_single_stage_parts(
    denoiser: NetworkDenoiser,
) -> None:
    y = torch.randn(6, 1, 8, 8)
    n = torch.randn(6, 1, 8, 8)
    sigma = torch.tensor([5.0, 0.1, 1.0, 0.02, 80.0, 0.5])
    denoiser.loss(y, sigma, n).sum().backward()
    mixed = [p.grad.clone() for p in denoiser.parameters() if p.grad is not None]
    denoiser.zero_grad()
    for stage in range(3):
        here = denoiser.stages.index(sigma) == stage
        denoiser.loss(y[here], sigma[here], n[here]).sum().backward()
    separate = [p.grad for p in denoiser.parameters() if p.grad is not None]
    for a, b in zip(mixed, separate, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()) + 1e-6)


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_little_noise_leaves_the_image_alone(name: str, model_config: ModelConfig) -> None:
    denoiser = build_denoiser(replace(model_config, preconditioning=name)).eval()
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(denoiser(x, 1e-5), x, rtol=0, atol=1e-3)


def test_edm_input_target_and_weight_have_unit_variance() -> None:
    """Var(c_in x) = Var((y - c_skip x) / c_out) = weight c_out^2 = 1 if Var(y) = sigma_data^2."""
    p = PRECONDITIONINGS["edm"](0.7, VP())
    var = 0.49
    one = torch.ones_like(SIGMA)
    torch.testing.assert_close(p.c_in(SIGMA) ** 2 * (var + SIGMA**2), one)
    skip = p.c_skip(SIGMA)
    torch.testing.assert_close(
        ((1 - skip) ** 2 * var + skip**2 * SIGMA**2) / p.c_out(SIGMA) ** 2, one
    )
    torch.testing.assert_close(p.weight(SIGMA) * p.c_out(SIGMA) ** 2, one)


@pytest.mark.parametrize("name", ["vp", "ddpm"])
def test_noise_prediction_has_the_plain_loss_on_the_noise(name: str) -> None:
    """With F = eps, x - sigma eps has the weighted error (eps - n)^2, whatever the level."""
    p = PRECONDITIONINGS[name](0.5, VP())
    y, n, eps = (torch.randn(23, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    sigma = SIGMA[:, None, None, None]
    denoised = y + sigma * n - sigma * eps
    torch.testing.assert_close(
        weighted_error(denoised, y, SIGMA, p), (eps - n).square().flatten(1).mean(1)
    )
    torch.testing.assert_close(p.c_out(SIGMA), -SIGMA)


def test_prediction_of_v_has_the_plain_loss_on_v() -> None:
    """With F = v + error, D has the weighted error mean(error^2), and v = (n - sigma y) / scale."""
    p = PRECONDITIONINGS["ddpm-v"](0.5, DDPM())
    y, n, error = (torch.randn(23, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    sigma = SIGMA[:, None, None, None]
    v = (n - sigma * y) / (1 + sigma**2).sqrt()
    skip, out = (part(SIGMA)[:, None, None, None] for part in (p.c_skip, p.c_out))
    torch.testing.assert_close(skip * (y + sigma * n) + out * v, y)
    denoised = skip * (y + sigma * n) + out * (v + error)
    plain = error.square().flatten(1).mean(1)
    torch.testing.assert_close(weighted_error(denoised, y, SIGMA, p), plain)


def test_flow_matching_has_the_plain_loss_on_the_velocity() -> None:
    """With F = v at x_t = (1 - t) y + t n, D has the weighted error (v - (n - y))^2."""
    p = PRECONDITIONINGS["flow"](0.5, DDPM())
    y, n, v = (torch.randn(23, 1, 4, 4, dtype=torch.float64) for _ in range(3))
    sigma = SIGMA[:, None, None, None]
    t = sigma / (1 + sigma)
    x = y + sigma * n
    torch.testing.assert_close(p.c_in(SIGMA)[:, None, None, None] * x, (1 - t) * y + t * n)
    denoised = p.c_skip(sigma) * x + p.c_out(sigma) * v
    expected = (v - (n - y)).square().flatten(1).mean(1)
    torch.testing.assert_close(weighted_error(denoised, y, SIGMA, p), expected)
    torch.testing.assert_close(p.c_noise(SIGMA), 1000 * t.flatten())


def test_steps_of_flow_matching_are_euler_steps_on_the_time_grid() -> None:
    """Euler's method for dx_t/dt = v and for sigma is the same if sigma = t / (1 - t)."""
    y = torch.randn(2, 1, 3, 3, dtype=torch.float64)

    def denoiser(x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        return (x / (1 + torch.as_tensor(sigma))).tanh() * y

    grid = GRIDS["time"].levels(6, Flow(), Flow().sampling_range)
    x = grid[0] * torch.randn(2, 1, 3, 3, dtype=torch.float64)
    times = [*Flow().to_clock(grid[:-1]), torch.zeros(())]
    flow = x * (1 - times[0])
    for t, after in pairwise(times):
        velocity = (flow - denoiser(flow / (1 - t), t / (1 - t))) / t
        flow = flow + (after - t) * velocity
    torch.testing.assert_close(SOLVERS["euler"](denoiser, x, grid, noise=torch.zeros), flow)


@pytest.mark.parametrize(
    ("name", "sigma_data", "deviation"),
    [("edm", None, 0.5), ("edm", 0.7, 0.7), ("vp", None, 1), ("ddpm", None, 1), ("flow", None, 1)],
)
def test_expected_deviations(name: str, sigma_data: float | None, deviation: float) -> None:
    assert expected_deviation(name, sigma_data) == pytest.approx(deviation)


def test_noise_labels_are_the_bases_own_clocks() -> None:
    assert float(PRECONDITIONINGS["vp"](0.5, VP()).c_noise(VP().from_clock(0.4))) == pytest.approx(
        999 * 0.4
    )
    assert float(
        PRECONDITIONINGS["ddpm"](0.5, VP()).c_noise(DDPM().from_clock(321.0))
    ) == pytest.approx(321)
    assert float(PRECONDITIONINGS["edm"](0.5, VP()).c_noise(torch.tensor(2.0))) == pytest.approx(
        torch.tensor(2.0).log() / 4
    )


def test_loss_of_a_network_without_output_has_its_closed_value(model_config: ModelConfig) -> None:
    """F = 0 leaves D = c_skip x; the expected error is (1 - c_skip)^2 y^2 + c_skip^2 sigma^2."""
    denoiser = build_denoiser(model_config).eval()
    for parameter in denoiser.parameters():
        torch.nn.init.zeros_(parameter)
    y = 0.5 * torch.randn(4000, 1, 8, 8)
    sigma = LogNormal().sigma(torch.rand(4000))
    loss = denoiser.loss(y, sigma, torch.randn_like(y))
    assert loss.shape == (4000,)
    assert float(loss.detach().mean()) == pytest.approx(1.0, abs=0.01)


def test_dtype_of_the_state_is_kept_and_the_network_runs_in_its_own(
    denoiser: NetworkDenoiser,
) -> None:
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    exact = denoiser(x, 1.0)
    denoiser.dtype = torch.bfloat16
    rough = denoiser(x, 1.0)
    assert exact.dtype == rough.dtype == torch.float64
    assert 0 < float((exact - rough).detach().abs().max()) < 0.2


def test_stages_and_decoders_must_agree(denoiser: NetworkDenoiser) -> None:
    with pytest.raises(BadInput, match="2 stages need 2 decoders, the network has 3"):
        NetworkDenoiser(denoiser.network, denoiser.preconditioning, Stages((1.0,)))


@pytest.mark.parametrize("name", PRECONDITIONINGS)
def test_without_noise_the_image_stays(name: str, model_config: ModelConfig) -> None:
    denoiser = build_denoiser(replace(model_config, preconditioning=name)).eval()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(denoiser(x, 0.0), x)
        assert torch.equal(denoiser(x, torch.tensor([0.0, 1.0]))[0], x[0])


def test_an_empty_batch_has_an_empty_result(denoiser: NetworkDenoiser) -> None:
    x = torch.zeros(0, 1, 8, 8)
    sigma = torch.zeros(0, dtype=torch.float64)
    assert denoiser(x, sigma).shape == denoiser(x, 1.0).shape == (0, 1, 8, 8)
    assert denoiser.loss(x, sigma, x).shape == (0,)


def test_rounded_weights_of_norms_change_the_loss_less_than_bf16_itself(
    denoiser: NetworkDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What GPUs do in bf16, see ``GroupNorm``."""
    sigma = torch.logspace(-1, 1, 64, dtype=torch.float64)
    y, noise = torch.randn(2, 64, *MODEL.shape)

    def loss() -> float:
        with torch.no_grad():
            return float(denoiser.loss(y, sigma, noise).mean())

    exact = loss()
    set_compute_dtype(denoiser, torch.bfloat16)
    usual = loss()
    monkeypatch.setattr(GroupNorm, "forward", GroupNorm.rounded)
    rounded = loss()
    assert rounded != usual
    assert abs(rounded - exact) < 2e-3 * exact
    assert abs(usual - exact) < 2e-3 * exact
