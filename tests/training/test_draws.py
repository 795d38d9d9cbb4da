import pytest
import torch

from multistage_diffusion.schedule import SCHEDULES, VP, LogNormal, Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.draws import Stream, generator, image_indices, stage_levels, stratified_levels


def draw(*position: int) -> torch.Generator:
    return generator(0, Stream.STEP, *position)


@pytest.mark.parametrize("schedule", [VP(), LogNormal()], ids=str)
def test_stratified_levels_have_one_in_each_cell(schedule: Schedule) -> None:
    u = schedule.u(stratified_levels(schedule, 32, draw()))
    assert (u * 32).floor().tolist() == list(range(32))


def test_stratified_levels_are_unbiased() -> None:
    """Pooled over many batches, u is uniform: mean 1/2 and variance 1/12."""
    u = torch.cat([VP().u(stratified_levels(VP(), 8, draw(k))) for k in range(2000)])
    assert float(u.mean()) == pytest.approx(1 / 2, abs=2e-3)
    assert float(u.var()) == pytest.approx(1 / 12, abs=2e-3)


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
    seeds = {generator(s, stream, p).initial_seed() for s in range(5) for stream in Stream for p in range(5)}
    assert len(seeds) == 5 * len(Stream) * 5
