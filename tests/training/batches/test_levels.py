from dataclasses import replace

import pytest
import torch

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images, to_unit_range
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import SCHEDULES, VP, LogNormal, Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.batches import levels as levels_module
from multistage_diffusion.training.batches.levels import Levels, stage_levels
from multistage_diffusion.training.batches.order import image_indices
from multistage_diffusion.training.randomness import Stream, generator
from tests.conftest import run_on


def draw(*position: int) -> torch.Generator:
    return generator(0, Stream.STEP, *position)


def natural(schedule: Schedule, stages: Stages) -> Levels:
    return Levels(
        schedule, stages, tuple(stages.share(schedule, stage) for stage in range(len(stages)))
    )


@pytest.mark.parametrize("stages", [Stages(), Stages((0.3, 2.5))], ids=len)
@pytest.mark.parametrize("schedule", [VP(), LogNormal()], ids=str)
def test_natural_levels_have_one_in_each_cell(schedule: Schedule, stages: Stages) -> None:
    u = schedule.u(natural(schedule, stages).draw(32, draw()))
    assert (u * 32).floor().tolist() == list(range(32))


def test_stratified_levels_are_unbiased() -> None:
    """Pooled over many batches, u is uniform: mean 1/2 and variance 1/12."""
    u = torch.cat([VP().u(natural(VP(), Stages()).draw(8, draw(k))) for k in range(2000)])
    assert float(u.mean()) == pytest.approx(1 / 2, abs=2e-3)
    assert float(u.var()) == pytest.approx(1 / 12, abs=2e-3)


SHARES = (0.2, 0.7, 0.1)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_stages_get_their_shares_and_levels_follow_the_schedule_inside(
    name: str, single: bool
) -> None:
    schedule, stages = SCHEDULES[name], Stages((0.3, 2.5))
    levels = Levels(schedule, stages, SHARES, single)
    batches = [levels.draw(10, draw(k)) for k in range(1500)]
    stage = torch.stack([stages.index(batch) for batch in batches])
    shares = stage.flatten().bincount(minlength=3) / stage.numel()
    assert shares.tolist() == pytest.approx(SHARES, abs=0.04 if single else 1e-6)
    assert bool((stage == stage[:, :1]).all()) == single
    sigma = torch.cat(batches)
    for k in range(3):
        low, high = (
            float(schedule.u(edge)) if 0 < edge < float("inf") else float(edge > 1)
            for edge in stages.bounds(k)
        )
        inside = (schedule.u(sigma[stages.index(sigma) == k]) - low) / (high - low)
        assert float(inside.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(inside.std()) == pytest.approx(12**-0.5, abs=0.03)


def test_weights_restore_the_schedule() -> None:
    """Of any function, the weighted mean over the drawn levels is the mean over the schedule's."""
    schedule, stages = VP(), Stages((0.3, 2.5))
    levels = Levels(schedule, stages, SHARES)
    sigma = torch.cat([levels.draw(64, draw(k)) for k in range(500)])
    plain = schedule.sigma((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    for function in (
        torch.ones_like,
        lambda s: s / (1 + s),
        lambda s: (s > 2.5).double(),
        torch.log,
    ):
        found = float((levels.weights(sigma) * function(sigma)).mean())
        assert found == pytest.approx(float(function(plain).mean()), rel=2e-3)
    assert (natural(schedule, stages).weights(sigma) - 1).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("given", "expected"), [("uniform", (1 / 3,) * 3), ((2.0, 1.0, 1.0), (0.5, 0.25, 0.25))]
)
def test_shares_are_configured(
    few_digits: Images, given: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    assert Levels.of(run_on(few_digits, shares=given)).shares == pytest.approx(expected)
    with pytest.raises(BadInput, match="2 numbers for 3 stages"):
        Levels.of(run_on(few_digits, shares=(0.5, 0.5)))
    with pytest.raises(BadInput, match="positive"):
        run_on(few_digits, shares=(0.5, 0.0, 0.5))


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_drawn_inside_a_stage_stay_inside(name: str) -> None:
    stages = Stages((0.3, 2.5))
    for stage in range(3):
        low, high = stages.bounds(stage)
        sigma = stage_levels(SCHEDULES[name], stages, stage, 500, draw())
        assert float(sigma.min()) >= low
        assert float(sigma.max()) <= high
        assert sigma.unique().numel() == 500


def test_image_indices_are_passes_over_the_data() -> None:
    whole = image_indices(1, 10, 0, 35)
    for epoch in range(3):
        assert sorted(whole[10 * epoch : 10 * epoch + 10].tolist()) == list(range(10))
    assert whole[:10].tolist() != whole[10:20].tolist()


def test_image_indices_do_not_depend_on_the_batches() -> None:
    parts = [image_indices(1, 10, start, 7) for start in range(0, 35, 7)]
    assert torch.equal(torch.cat(parts), image_indices(1, 10, 0, 35))


def test_streams_and_positions_are_independent() -> None:
    seeds = {
        generator(s, stream, p).initial_seed()
        for s in range(5)
        for stream in Stream
        for p in range(5)
    }
    assert len(seeds) == 5 * len(Stream) * 5


@pytest.mark.slow
def test_mixed_and_single_stage_batches_have_the_same_expected_gradient(
    few_digits: Images, denoiser: NetworkDenoiser
) -> None:
    """The gradients of 300 batches, seen from ten random directions: their means differ by less
    than four standard errors."""
    directions = torch.randn(10, sum(p.numel() for p in denoiser.parameters()))
    means, errors = [], []
    for single in (False, True):
        levels = Levels(LogNormal(), denoiser.stages, (0.5, 0.3, 0.2), single)
        seen = []
        for batch in range(300):
            source = draw(batch, single)
            y = to_unit_range(few_digits.pixels[torch.randint(50, (8,), generator=source)])
            loss = denoiser.loss(
                y, levels.draw(8, source), torch.randn(y.shape, generator=source)
            ).mean()
            gradient = torch.autograd.grad(
                loss, list(denoiser.parameters()), allow_unused=True, materialize_grads=True
            )
            seen.append(directions @ torch.cat([part.flatten() for part in gradient]))
        means.append(torch.stack(seen).mean(0))
        errors.append(torch.stack(seen).std(0) / 300**0.5)
    assert ((means[0] - means[1]).abs() < 4 * (errors[0] ** 2 + errors[1] ** 2).sqrt()).all()
    assert float(errors[1].mean()) > float(errors[0].mean())  # single-stage batches are noisier


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("position", [0.0, 1.0])
def test_rounding_does_not_lead_out_of_a_stage(
    name: str, position: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At either end of their cells levels are finite, positive and in their own stage."""

    def ends(count: int, _: torch.Generator) -> torch.Tensor:
        return torch.full((count,), position, dtype=torch.float64)

    monkeypatch.setattr(levels_module, "_stratified", ends)
    stages = Stages((0.3, 2.5))
    for stage in range(3):
        sigma = stage_levels(SCHEDULES[name], stages, stage, 4, draw())
        assert stages.index(sigma).tolist() == [stage] * 4
        assert 0 < float(sigma.min()) <= float(sigma.max()) < 1e6


def test_stages_without_levels_are_refused(few_digits: Images) -> None:
    """A log-normal density would give them the largest float64 number, others a single level."""
    for schedule, name in ((LogNormal(), "edm"), (VP(), "vp")):
        config = run_on(few_digits)
        config = replace(config, model=replace(config.model, boundaries=(0.3, 1e6), schedule=name))
        for shares in ("natural", "uniform"):
            with pytest.raises(BadInput, match="no noise levels between sigma 1e\\+06 and inf"):
                Levels.of(replace_settings(config, shares=shares))
        with pytest.raises(BadInput, match="no noise levels"):
            stage_levels(schedule, Stages((0.3, 1e6)), 2, 4, draw())
