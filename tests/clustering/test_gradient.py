from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from multistage_diffusion.clustering import ClusterOptions, Sums, cluster
from multistage_diffusion.clustering.curves import pairs
from multistage_diffusion.clustering.gradient import GROUPS, SKETCH, Affinity, add_gradients
from multistage_diffusion.clustering.methods import _by_gradients
from multistage_diffusion.data import Images, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.schedule import VP
from tests.conftest import MODEL, TINY, disturb

OPTIONS = ClusterOptions(method="gradient", pairs=32, levels=12)
SIGMAS = torch.tensor([0.05, 0.2, 1.0, 5.0], dtype=torch.float64)


def model(
    data: Images, decoders: int = 1, encoders: int = 1, width: int = 8, classes: int = 0
) -> Model:
    widths = replace(TINY, decoder_widths=(width,) * decoders, encoder_widths=(width,) * encoders)
    config = replace(
        MODEL, boundaries=MODEL.boundaries[: decoders - 1], network=widths, classes=classes
    )
    denoiser = disturb(build_denoiser(config)).eval()
    return Model(denoiser, config, 0)


def gradients(data: Images, trained: Model) -> torch.Tensor:
    """The gradient of the loss summed over the pairs, one level after another:

    ``[levels, parameters]``.
    """
    chosen, noise = pairs(data, 0, range(32))
    rows = []
    for sigma in SIGMAS:
        trained.denoiser.zero_grad()
        y = to_unit_range(data.pixels[chosen])
        trained.denoiser.loss(y, sigma.expand(32), noise.float()).sum().backward()
        shared = (
            trained.denoiser.network.encoders[0]
            if len(trained.denoiser.stages) > 1
            else trained.denoiser
        )
        rows.append(
            torch.cat([p.grad.flatten() for p in shared.parameters() if p.grad is not None])
        )
    return torch.stack(rows)


@pytest.mark.parametrize(("decoders", "width"), [(1, 4), (3, 8)])
def test_the_cosines_are_those_of_the_shared_gradients(
    few_digits: Images, decoders: int, width: int
) -> None:
    trained, sums = model(few_digits, decoders, width=width), Sums()
    assert sum(add_gradients(trained, few_digits, SIGMAS, OPTIONS, sums, 32)) == 32
    rows = gradients(few_digits, trained)
    assert rows.shape[1] < SKETCH
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    np.testing.assert_allclose(Affinity(sums).cosines(np.ones(GROUPS)), expected, atol=1e-4)


def test_sketches_keep_the_cosines_of_larger_networks(few_digits: Images) -> None:
    trained, sums = model(few_digits, width=32), Sums()
    list(add_gradients(trained, few_digits, SIGMAS, OPTIONS, sums, 32))
    rows = gradients(few_digits, trained)
    assert rows.shape[1] > 5 * SKETCH
    expected = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    np.testing.assert_allclose(
        Affinity(sums).cosines(np.ones(GROUPS)), expected, atol=5 / SKETCH**0.5
    )


def test_blocks_of_equal_gradients_are_the_stages() -> None:
    """Levels 0..3, 4..6 and 7..11 have gradients along three axes."""
    sums = Sums(np.ones(GROUPS), {"sketch": np.zeros((GROUPS, 12, SKETCH))})
    for axis, (first, end) in enumerate(pairwise((0, 4, 7, 12))):
        sums.curves["sketch"][:, first:end, axis] = 1
    assert Affinity(sums).cuts(np.ones(GROUPS), 3) == [4, 7]


@pytest.mark.slow
def test_stages_of_a_model_continue_from_partial_sums(few_digits: Images) -> None:
    trained = model(few_digits)
    whole = cluster(few_digits, VP(), OPTIONS, trained)
    assert len(whole.stages) == 3
    assert whole.pairs == 32
    for (low, high), boundary in zip(whole.ci95, whole.stages.boundaries, strict=True):
        assert low < boundary < high
    sums = Sums()
    steps = add_gradients(trained, few_digits, torch.from_numpy(whole.sigmas), OPTIONS, sums, 32)
    for _ in range(5):
        next(steps)
    again = cluster(few_digits, VP(), OPTIONS, trained, sums)
    np.testing.assert_array_equal(again.cosines, whole.cosines)


def test_models_that_cannot_serve_are_refused(few_digits: Images, digits: Images) -> None:
    with pytest.raises(BadInput, match="needs a trained model"):
        cluster(few_digits, VP(), OPTIONS)
    with pytest.raises(BadInput, match="separate networks"):
        cluster(few_digits, VP(), OPTIONS, model(few_digits, 3, 3))
    with pytest.raises(BadInput, match="no labels"):
        cluster(Images(few_digits.pixels), VP(), OPTIONS, model(few_digits, classes=10))
    with pytest.raises(BadInput, match=r"images of \[1, 8, 8\]"):
        cluster(
            Images(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)), VP(), OPTIONS, model(few_digits)
        )


def test_intervals_cover_the_boundary_of_exact_gradients() -> None:
    """Gradients of 12 levels that turn slowly, with noise in each of 16 groups: at least four in
    five intervals of 10 draws hold the boundary without noise."""
    draw = np.random.default_rng(0)
    angle = np.linspace(0, 3, 12) + 0.6 * (np.arange(12) >= 5) + 0.6 * (np.arange(12) >= 8)
    exact = np.zeros((GROUPS, 12, SKETCH))
    exact[:, :, 0], exact[:, :, 1] = np.cos(angle), np.sin(angle)
    u = (np.arange(12) + 0.5) / 12
    cut = Affinity(Sums(np.ones(GROUPS), {"sketch": exact})).cuts(np.ones(GROUPS), 3)
    truth = VP().sigma(torch.tensor([(u[c - 1] + u[c]) / 2 for c in cut]))
    covered = np.zeros(2)
    for _ in range(10):
        noisy = exact.copy()
        noisy[:, :, :40] += 0.3 * draw.standard_normal((GROUPS, 12, 40))
        sums = Sums(np.full(GROUPS, 2.0), {"sketch": noisy})
        found = _by_gradients(VP(), OPTIONS, VP().sigma(torch.from_numpy(u)), sums)
        ends = zip(found.ci95, truth.tolist(), strict=True)
        covered += [low <= value <= high for (low, high), value in ends]
        assert all(low < high for low, high in found.ci95)
    assert covered.min() >= 8
