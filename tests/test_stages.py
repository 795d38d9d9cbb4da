import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import SCHEDULES, LogNormal
from multistage_diffusion.stages import Stages


def test_index_follows_the_bounds() -> None:
    stages = Stages((0.5, 2.0))
    sigma = torch.tensor([0.01, 0.4999, 0.5, 1.9, 2.0, 500.0])
    assert stages.index(sigma).tolist() == [0, 0, 1, 1, 2, 2]
    assert [stages.bounds(k) for k in range(3)] == [(0, 0.5), (0.5, 2.0), (2.0, math.inf)]


def test_no_boundaries_are_one_stage() -> None:
    assert len(Stages()) == 1
    assert Stages().index(torch.tensor([0.0, 7.0])).tolist() == [0, 0]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5, unique=True))
def test_every_level_lies_inside_the_bounds_of_its_stage(boundaries: list[float]) -> None:
    stages = Stages(tuple(sorted(boundaries)))
    sigma = torch.logspace(-4, 4, 50, dtype=torch.float64)
    for level, stage in zip(sigma.tolist(), stages.index(sigma).tolist(), strict=True):
        low, high = stages.bounds(stage)
        assert low <= level < high


def test_shares_of_the_release_under_edms_density() -> None:
    stages = Stages((2.5103, 7.6577))
    shares = [stages.share(LogNormal(), k) for k in range(3)]
    assert shares == pytest.approx([0.96139, 0.03511, 0.00350], abs=5e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_shares_sum_to_one(name: str) -> None:
    stages = Stages((0.3, 2.5, 7.0))
    assert sum(stages.share(SCHEDULES[name], k) for k in range(4)) == pytest.approx(1)


@pytest.mark.parametrize(
    "boundaries", [(2.0, 1.0), (1.0, 1.0), (0.0, 1.0), (-1.0,), (math.inf,), (math.nan,)]
)
def test_boundaries_out_of_order_are_refused(boundaries: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="positive, finite and increasing"):
        Stages(boundaries)


def test_load_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    path.write_text(json.dumps({"boundaries": [0.5, 2], "clock": "t"}))
    assert Stages.load(path) == Stages((0.5, 2.0))


@pytest.mark.parametrize(
    "content",
    ["", "[1, 2]", "{}", '{"boundaries": 3}', '{"boundaries": ["a"]}', '{"boundaries": [2, 1]}'],
)
def test_a_file_that_is_no_stages_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stages.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"stages\.json"):
        Stages.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.json"):
        Stages.load(tmp_path / "nowhere.json")
