import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multistage_diffusion.schedule import DDPM, SCHEDULES, VE, VP, Flow, Karras, LogNormal, Schedule

BOUNDED = [
    VP(),
    VE(),
    Karras(),
    DDPM(),
    VP(beta_min=0.2, beta_max=10, t_min=1e-5),
    DDPM(1e-4, 0.02, 50),
    DDPM(1e-4, 0.02, betas="linear"),
    DDPM(betas="cosine"),
]
ALL = [*BOUNDED, LogNormal(), LogNormal(0.4, 1.0), Flow(), Flow(-0.5, 1.4)]


@pytest.mark.parametrize("schedule", ALL, ids=str)
@given(u=st.floats(1e-9, 1 - 1e-9))
def test_u_and_sigma_are_inverse(schedule: Schedule, u: float) -> None:
    sigma = schedule.sigma(u)
    assert float(schedule.u(sigma)) == pytest.approx(u, rel=1e-6, abs=1e-12)
    assert float(schedule.sigma(schedule.u(sigma))) == pytest.approx(float(sigma), rel=1e-6)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_inverse_on_noise_levels_from_end_to_end(schedule: Schedule) -> None:
    low, high = schedule.sampling_range
    sigma = torch.logspace(math.log10(low), math.log10(high), 1001, dtype=torch.float64)
    sigma = sigma.clamp(low, high)
    torch.testing.assert_close(schedule.sigma(schedule.u(sigma)), sigma, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        schedule.from_clock(schedule.to_clock(sigma)), sigma, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_sigma_increases(schedule: Schedule) -> None:
    sigma = schedule.sigma(torch.linspace(0, 1, 5001)[1:-1])
    assert (sigma.diff() > 0).all()
    assert (schedule.levels(33).diff() > 0).all()
    assert sigma.dtype == torch.float64


@pytest.mark.parametrize("schedule", BOUNDED, ids=str)
def test_levels_outside_the_schedule_have_quantile_0_or_1(schedule: Schedule) -> None:
    low, high = schedule.sampling_range
    assert float(schedule.u(low / 2)) == 0
    assert float(schedule.u(high * 2)) == 1


def test_vp_values_of_the_paper() -> None:
    assert VP().from_clock(
        torch.tensor([0.4420, 0.6308, 1.0], dtype=torch.float64)
    ).tolist() == pytest.approx([2.51027, 7.40458, 152.167], rel=1e-5)


def test_vp_is_accurate_at_small_times() -> None:
    """The quadratic formula in its usual form loses 5 digits here."""
    t = torch.tensor([1e-6, 1e-5, 1e-4], dtype=torch.float64)
    torch.testing.assert_close(VP().to_clock(VP().from_clock(t)), t, rtol=1e-10, atol=0)


def test_ddpm_equals_the_product_of_alphas() -> None:
    beta = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - beta, 0)
    steps = torch.arange(1000)
    torch.testing.assert_close(DDPM().from_clock(steps), ((1 - abar) / abar).sqrt())
    torch.testing.assert_close(DDPM().to_clock(((1 - abar) / abar).sqrt()), steps.double())


def test_lognormal_draws_have_its_moments() -> None:
    log = LogNormal().sigma((torch.arange(100_000) + 0.5) / 100_000).log()
    assert float(log.mean()) == pytest.approx(-1.2, abs=1e-6)
    assert float(log.std()) == pytest.approx(1.2, abs=1e-3)


def test_flows_times_are_logit_normal() -> None:
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    t = Flow(0.3, 0.8).to_clock(Flow(0.3, 0.8).sigma(u))
    logit = (t / (1 - t)).log()
    assert float(logit.mean()) == pytest.approx(0.3, abs=1e-3)
    assert float(logit.std()) == pytest.approx(0.8, rel=1e-3)
    assert float(Flow().to_clock(math.inf)) == 1


def test_karras_is_edms_grid() -> None:
    ramp = torch.linspace(0, 1, 18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(Karras().sigma(1 - ramp), expected)


def test_numbers_keep_their_precision() -> None:
    assert float(VP().from_clock(0.4420)) == float(
        VP().from_clock(torch.tensor(0.4420, dtype=torch.float64))
    )
    assert float(LogNormal().to_clock(1.3)) == 1.3


def test_named_schedules() -> None:
    chains = {"ddpm", "ddpm-linear", "ddpm-cosine"}
    assert set(SCHEDULES) == {"vp", "edm", "ve", "flow", "karras", *chains}
