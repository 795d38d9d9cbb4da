from dataclasses import replace

import pytest
import torch

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training import train
from multistage_diffusion.training.batches.sharing import (
    balance,
    check_sharing,
    expected_balance,
    share_out,
)
from tests.conftest import run_on

# Of each stage: share of the images, multiply-accumulates in training and bytes of activations for
# an image, relative to the first stage; counted by multistage_diffusion.cost.
PRESETS = {
    "dpm-cifar10": (128, (0.4414, 0.1890, 0.3696), (1, 0.5998, 0.2308), (1, 0.8259, 0.5213)),
    "ldm-256": (48, (0.4419, 0.1892, 0.3689), (1, 0.6987, 0.4703), (1, 0.8499, 0.6998)),
    "small": (64, (0.4414, 0.1889, 0.3697), (1, 0.5145, 0.5145), (1, 0.7671, 0.7671)),
    "edm-cifar10": (512, (1 / 3, 1 / 3, 1 / 3), (1, 0.5927, 0.2161), (1, 0.814, 0.4884)),
}


def stage_of_samples(name: str, batch: int) -> torch.Tensor:
    shares = torch.tensor(PRESETS[name][1], dtype=torch.float64)
    return torch.bucketize((torch.arange(batch) + 0.5) / batch, shares.cumsum(0)[:-1])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (8, 1), (2, 4), (64, 1)])
def test_work_and_memory_of_the_presets_are_balanced(
    name: str, world_size: int, accumulate: int
) -> None:
    """In their own batches, or where these have fewer than eight images for each part, in larger
    ones: then equal parts need not exist."""
    parts = world_size * accumulate
    batch = PRESETS[name][0]
    batch = batch if batch >= 8 * parts else 16 * parts
    stage = stage_of_samples(name, batch)
    costs, memory = (
        torch.tensor(values, dtype=torch.float64)[stage] for values in PRESETS[name][2:]
    )
    ranks = share_out(costs, world_size, accumulate)
    everything = torch.cat([rows for rank in ranks for rows in rank])
    assert everything.sort().values.tolist() == list(range(batch))
    assert balance(costs, [torch.cat(rank) for rank in ranks]) >= 0.95
    micro_batches = [rows for rank in ranks for rows in rank]
    assert balance(memory, micro_batches) >= 0.85
    if accumulate > 1:
        assert balance(costs, micro_batches) >= 0.9


def test_equal_parts_of_equal_samples_are_even() -> None:
    ranks = share_out(torch.ones(13), 2, 3)
    assert sorted(sum(map(len, rank)) for rank in ranks) == [6, 7]
    assert {len(rows) for rank in ranks for rows in rank} == {2, 3}
    assert all(torch.equal(rows, rows.sort().values) for rank in ranks for rows in rank)


def test_one_part_is_the_whole_batch_in_order() -> None:
    assert share_out(torch.rand(9), 1, 1)[0][0].tolist() == list(range(9))


def test_no_sharing_is_better_where_all_can_be_tried() -> None:
    """Of all ways to give eight samples to two ranks the best is at most a tenth better."""
    costs = torch.tensor([1, 1, 1, 0.6, 0.6, 0.23, 0.23, 0.23], dtype=torch.float64)
    ways = [
        [
            torch.nonzero(torch.tensor([(way >> k) & 1 for k in range(8)]) == side)[:, 0]
            for side in (0, 1)
        ]
        for way in range(1, 255)
    ]
    best = max(balance(costs, way) for way in ways)
    assert balance(costs, [part for (part,) in share_out(costs, 2, 1)]) >= 0.9 * best


def test_batches_that_are_too_small_are_refused(few_digits: Images) -> None:
    check_sharing(8, 2, 4)
    with pytest.raises(BadInput, match="Batches of 8 images are too small for 3 processes"):
        check_sharing(8, 3, 4)
    with pytest.raises(BadInput, match="too small for 64 processes"):
        expected_balance(run_on(few_digits), [1.0, 0.5, 0.2], 64)


def test_the_expected_balance_is_that_of_drawn_batches(few_digits: Images) -> None:
    config = run_on(few_digits, batch_size=64, shares="uniform")
    assert expected_balance(config, [1.0, 1.0, 1.0], 2) == 1
    assert expected_balance(config, [1.0, 1.0, 1.0], 3) == pytest.approx(64 / 3 / 22)
    assert 0.95 < expected_balance(config, [1.0, 0.5, 0.2], 8) < 1


def test_micro_batches_change_nothing(
    few_digits: Images, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With dropout and hidden labels, weights are those of one part up to rounding."""
    config = run_on(few_digits, images=40)
    network = replace(config.model.network, label_dropout=0.3)
    config = replace(config, model=replace(config.model, classes=10, network=network))
    assert network.dropout > 0
    found = []
    for accumulate in (1, 3):
        parts = replace_settings(config.training, accumulate=accumulate)
        run = tmp_path_factory.mktemp("run")
        records = list(train(replace(config, training=parts), few_digits, run))
        found.append([loss or 0 for record in records for loss in record.loss + record.probe_loss])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
