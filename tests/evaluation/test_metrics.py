"""Metrics equal those of torchmetrics, prdc and the formulas on the same features."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import (
    compare_manifolds,
    extrapolated_distance,
    frechet,
    inception_score,
    kernel_distance,
    measure_memorisation,
    mind,
)
from multistage_diffusion.evaluation.estimate import bootstrap_deviation, over_seeds


def features(count: int, dimensions: int = 12, seed: int = 0, shift: float = 0.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, dimensions, generator=source) @ mixing / 3 + shift


GENERATED, REAL = features(300, seed=1, shift=0.2), features(400, seed=2)


def test_frechet_distance_equals_that_of_torchmetrics() -> None:
    moments = [(x.double().mean(0), x.double().T.cov()) for x in (GENERATED, REAL)]
    expected = float(_compute_fid(*moments[0], *moments[1]))
    assert frechet(GENERATED, REAL, 0).value == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_equals_that_of_torchmetrics_on_sets_of_one_size() -> None:
    x, y = GENERATED.double(), REAL[:300].double()
    kernels = [(a @ b.T / 12 + 1) ** 3 for a, b in ((x, x), (x, y), (y, y))]
    off_diagonal = sum(float(k.sum() - k.diagonal().sum()) for k in (kernels[0], kernels[2]))
    expected = off_diagonal / (300 * 299) - 2 * float(kernels[1].mean())
    found = kernel_distance(GENERATED, REAL[:300]).value
    assert found == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx(float(poly_mmd(x, y)), abs=1e-4 * abs(expected) + 1e-6)


def test_precision_recall_density_and_coverage_equal_those_of_prdc() -> None:
    expected = compute_prdc(REAL.numpy(), GENERATED.numpy(), nearest_k=5)
    found = compare_manifolds(GENERATED, REAL)
    for name, value in expected.items():
        assert getattr(found, name).value == pytest.approx(value, abs=1e-4)


def test_mind_of_shifted_features_is_three_times_the_squared_shift() -> None:
    """The mean square of a projection of a vector in F dimensions is its square over F."""
    x = features(500, 200)
    shift = torch.zeros(200)
    shift[3] = 2.0
    assert mind(x + shift, x, 0).value == pytest.approx(3 * 4, rel=0.1)
    assert mind(x, x, 0).value == 0


def test_mind_grows_with_the_square_of_the_scale() -> None:
    one, three = mind(GENERATED, REAL, 0), mind(3 * GENERATED, 3 * REAL, 0)
    assert three.value == pytest.approx(9 * one.value, rel=1e-4)


def test_inception_score_of_certain_classes_is_their_number_and_of_unsure_ones_is_1() -> None:
    certain = torch.eye(4).repeat(50, 1)
    assert inception_score(certain, splits=1).value == pytest.approx(4)
    assert inception_score(torch.full((40, 4), 0.25)).value == pytest.approx(1)


def test_the_kernel_distance_of_equal_distributions_is_zero_within_its_interval() -> None:
    """95 % intervals hold the truth in about 95 of 100 trials."""
    estimates = [
        kernel_distance(features(60, seed=2 * k), features(60, seed=2 * k + 1)) for k in range(200)
    ]
    values = np.array([estimate.value for estimate in estimates])
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5, "unbiased"
    covered = [e.interval is not None and e.interval[0] <= 0 <= e.interval[1] for e in estimates]
    assert 0.88 <= np.mean(covered) <= 1


def test_the_bootstrap_finds_the_deviation_of_a_mean() -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = bootstrap_deviation(lambda rows: float(x[rows].mean()), 400, 300)
    assert found == pytest.approx(float(x.std() / 20), rel=0.15)


def test_extrapolation_removes_most_of_the_bias_of_few_images() -> None:
    real = features(20_000, 32, seed=5)
    few = features(200, 32, seed=6)
    value = frechet(few, real, 0).value
    infinite = extrapolated_distance(few, real)
    assert abs(infinite.value) < 0.35 * value
    with pytest.raises(BadInput, match="32 images"):
        extrapolated_distance(few[:31], real)


def test_a_copied_image_is_found_with_its_original() -> None:
    training, held_out = features(400, seed=7), features(400, seed=8)
    generated = torch.cat([features(199, seed=9), training[123:124] + 1e-6])
    found = measure_memorisation(generated, training, held_out, shown=1)
    assert found.suspects.tolist() == [199]
    assert found.originals.tolist() == [123]
    assert 1 / 200 <= found.share.value < 0.06
    assert measure_memorisation(training, training, held_out).share.value == 1


def test_the_interval_over_seeds_is_that_of_student() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.interval is not None
    assert found.interval[1] - 2 == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert over_seeds([5.0]).interval is None


def test_too_few_images_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="more than 5 images"):
        compare_manifolds(GENERATED[:5], REAL)
    with pytest.raises(BadInput, match="at least 2"):
        kernel_distance(GENERATED[:1], REAL)
