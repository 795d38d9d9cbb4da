import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.clustering import ClusterOptions, Sums, agreement, cluster, thresholds
from multistage_diffusion.data import Images, load, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.schedule import SCHEDULES, VP, LogNormal
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import RunConfig

OPTIONS = ClusterOptions(pairs=40, levels=17)
U = np.linspace(0, 1, 1001)


def test_thresholds_of_a_step_are_exact() -> None:
    """S0 falls from 1 to 0 at 0.45: its running mean 0.45/u reaches 0.9 at u = 0.5.

    S1 rises at 0.7: 0.3/(1-u) at u = 2/3.
    """
    low, high = (U < 0.45).astype(float), (U > 0.7).astype(float)
    assert thresholds(U, low, high, 0.9) == pytest.approx((0.5, 2 / 3), abs=1e-3)


def test_thresholds_of_linear_curves_are_exact() -> None:
    """The mean of 1 - v over [0, u] is 1 - u/2; that of v over [u, 1] is (1 + u)/2."""
    assert thresholds(U, 1 - U, U, 0.9) == pytest.approx((0.2, 0.8), abs=1e-3)


def test_thresholds_do_not_depend_on_how_levels_are_spread() -> None:
    uneven = np.sort(np.concatenate([U**3, U]))
    assert thresholds(uneven, 1 - uneven, uneven, 0.9) == pytest.approx((0.2, 0.8), abs=1e-3)


def test_thresholds_that_are_never_reached_are_nan() -> None:
    flat = np.full_like(U, 0.5)
    assert np.isnan(thresholds(U, flat, flat, 0.9)).all()


def test_agreement_is_the_definition(few_digits: Images) -> None:
    """One pair at a time, in float64, by the formulas of the paper on pixels in [0, 1]."""
    sigmas = torch.tensor([0.05, 0.5, 2.0, 30.0], dtype=torch.float64)
    options = replace(OPTIONS, pairs=5)
    (found,) = agreement(few_digits, sigmas, options)
    data = few_digits.pixels[:].double() / 255
    for pair, image in enumerate(np.random.default_rng((0, 0, 1)).permutation(50)[:5]):
        n = torch.from_numpy(np.random.default_rng((0, pair)).standard_normal((1, 8, 8)))
        for level, sigma in enumerate(sigmas.tolist()):
            x = data[image] + sigma * n
            weights = torch.softmax(-((x - data) ** 2).flatten(1).sum(1) / (2 * sigma**2), 0)
            denoised = torch.einsum("n,nchw->chw", weights, data)
            near = ((data[image] - denoised).abs() <= options.eta * sigma).double().mean()
            mean = ((data.mean(0) - denoised).abs() <= options.eta * sigma).double().mean()
            assert found.low[pair, level] == pytest.approx(float(near), abs=1 / 64)
            assert found.high[pair, level] == pytest.approx(float(mean), abs=1 / 64)


def test_agreement_has_its_limits(digits: Images) -> None:
    found = list(agreement(digits, torch.tensor([1e-3, 1e3], dtype=torch.float64), OPTIONS))
    low = np.concatenate([part.low for part in found])
    high = np.concatenate([part.high for part in found])
    assert low[:, 0].min() == 1
    assert high[:, 1].min() == 1


def test_one_image_agrees_with_both_limits_everywhere(few_digits: Images) -> None:
    one = Images(few_digits.pixels[:1])
    (found,) = agreement(one, VP().levels(9), OPTIONS)
    assert found.low.min() == found.high.min() == 1


@pytest.mark.parametrize("stages", [3, 4])
def test_chunks_do_not_matter(digits: Images, monkeypatch: pytest.MonkeyPatch, stages: int) -> None:
    options = replace(OPTIONS, stages=stages)
    whole = cluster(digits, VP(), options)
    monkeypatch.setattr("multistage_diffusion.clustering.curves.CHUNK_BYTES", 1)
    steps: list[int] = []

    def watch(found: Iterator[int], *_: object) -> list[int]:
        steps.extend(found)
        return steps

    parts = cluster(digits, VP(), options, progress=watch)
    assert steps == [1] * options.pairs
    assert parts.stages.boundaries == pytest.approx(whole.stages.boundaries, rel=1e-9)
    assert np.array(parts.ci95) == pytest.approx(np.array(whole.ci95), rel=1e-9)


@pytest.mark.parametrize("stages", [3, 2])
def test_an_interrupted_computation_continues_from_its_sums(
    digits: Images, tmp_path: Path, stages: int
) -> None:
    options = replace(OPTIONS, stages=stages)
    sums, file = Sums(), tmp_path / "sums"
    for part in agreement(digits, VP().levels(options.levels), options, 0, 23):
        sums.add(part)
    sums.save(file, {"data": 1})
    with pytest.raises(BadInput, match="other data or settings"):
        Sums.load(file, {"data": 2})
    continued = cluster(digits, VP(), options, sums=Sums.load(file, {"data": 1}))
    whole = cluster(digits, VP(), options)
    assert continued.pairs == whole.pairs == options.pairs
    assert continued.stages.boundaries == pytest.approx(whole.stages.boundaries, rel=1e-9)
    assert np.array(continued.ci95) == pytest.approx(np.array(whole.ci95), rel=1e-9)


def test_pairs_are_drawn_until_the_intervals_are_narrow(digits: Images) -> None:
    options = replace(OPTIONS, ci_width=0.008)
    first, found = cluster(digits, VP(), OPTIONS), cluster(digits, VP(), options)
    assert found.ci_width <= 0.008 < first.ci_width
    assert found.pairs > first.pairs == OPTIONS.pairs
    limited = cluster(digits, VP(), replace(options, ci_width=1e-6, most_pairs=60))
    assert limited.pairs == 60


def test_intervals_shrink_with_the_root_of_the_number_of_pairs(digits: Images) -> None:
    widths = [cluster(digits, VP(), replace(OPTIONS, pairs=pairs)).ci_width for pairs in (64, 1024)]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "draws", "most"), [(3, 40, 4096), (2, 10, 800), (4, 10, 800)])
def test_intervals_cover_the_boundary_of_many_pairs(
    digits: Images, stages: int, draws: int, most: int
) -> None:
    """Of intervals for several draws of 40 pairs and with 17 levels, at least four in five hold the
    value of many pairs, and none is without width."""
    options = replace(OPTIONS, stages=stages)
    truth = cluster(digits, VP(), replace(options, pairs=most, seed=99)).stages.boundaries
    covered = np.zeros(stages - 1)
    for seed in range(draws):
        found = cluster(digits, VP(), replace(options, seed=seed))
        ends = zip(found.ci95, truth, strict=True)
        covered += [low <= value <= high for (low, high), value in ends]
        assert all(low < high for low, high in found.ci95)
        assert found.ci_width >= found.spacing
        assert (found.spacing > 0) == (stages != 3)
    assert covered.min() >= 0.8 * draws


def test_intervals_need_pairs_and_levels(digits: Images) -> None:
    assert cluster(digits, VP(), replace(OPTIONS, pairs=15)).ci95 == []
    with pytest.raises(BadInput, match="at least 16 pairs, not 15"):
        replace(OPTIONS, pairs=15, ci_width=0.1)
    with pytest.raises(BadInput, match=r"two of 17 levels, whose distance is 0\.0588"):
        cluster(digits, VP(), replace(OPTIONS, stages=2, ci_width=0.05))


def test_pairs_are_added_until_an_interval_is_little_wider_than_the_levels_are_apart(
    digits: Images,
) -> None:
    options = replace(OPTIONS, stages=4, ci_width=0.061, most_pairs=400)
    found = cluster(digits, VP(), options)
    assert found.ci_width <= 0.061 or found.pairs == 400
    assert found.pairs > OPTIONS.pairs


def test_latents_and_other_numbers_of_channels(tmp_path: Path) -> None:
    """Latents are taken as they are: pixels written as latents in [0, 1] give the same stages."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, 4, 4, 5)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", base)
    np.save(tmp_path / "latents.npy", (base.transpose(0, 3, 1, 2) / 255).astype(np.float32))
    pixels, latents = load(tmp_path / "pixels.npy"), load(tmp_path / "latents.npy")
    assert pixels.shape == latents.shape == (5, 4, 4)
    first, second = (
        cluster(images, VP(), OPTIONS).stages.boundaries for images in (pixels, latents)
    )
    assert first == pytest.approx(second, rel=1e-3)


@pytest.mark.parametrize(("name", "alpha"), [("vp", 0.9), ("ve", 0.9), ("ddpm", 0.75)])
@pytest.mark.parametrize("stages", [3, 2])
def test_every_schedule_gives_stages_of_the_data(
    digits: Images, name: str, alpha: float, stages: int
) -> None:
    low, high = SCHEDULES[name].sampling_range
    found = cluster(digits, SCHEDULES[name], replace(OPTIONS, stages=stages, alpha=alpha)).stages
    assert len(found) == stages
    assert low < found.boundaries[0]
    assert found.boundaries[-1] < high


def test_more_noise_never_helps_the_first_stage_of_digits(digits: Images) -> None:
    found = cluster(digits, VP(), OPTIONS)
    low, high = found.stages.boundaries
    assert 0.2 < low < 0.5 < 2 < high < 3
    for (left, right), boundary in zip(found.ci95, found.stages.boundaries, strict=True):
        assert left < boundary < right


def test_a_shuffled_data_set_has_nearly_the_same_stages(digits: Images) -> None:
    shuffled = Images(digits.pixels[torch.randperm(len(digits))])
    first, second = (cluster(data, VP(), ClusterOptions()) for data in (digits, shuffled))
    for a, b, (low, high) in zip(
        first.stages.boundaries, second.stages.boundaries, first.ci95, strict=True
    ):
        assert abs(a - b) < 2 * (high - low)


def test_scaled_noise_and_tolerance_scale_together(digits: Images) -> None:
    """A larger tolerance widens the first stage and lengthens the last."""
    narrow, wide = (
        cluster(digits, VP(), replace(OPTIONS, eta=eta)).stages.boundaries
        for eta in (1 / 256, 3 / 256)
    )
    assert narrow[0] < wide[0]
    assert narrow[1] > wide[1]


def test_the_stages_file_is_complete_and_readable(digits: Images, tmp_path: Path) -> None:
    found = cluster(digits, LogNormal(), OPTIONS)
    contents = json.loads(json.dumps(found.to_json(digits, "edm")))
    assert set(contents) == {
        "boundaries",
        "clock",
        "boundaries_in_clock",
        "ci95",
        "method",
        "parameters",
        "curves",
        "data",
    }
    assert contents["data"] == {
        "fingerprint": digits.fingerprint,
        "images": 1797,
        "shape": [1, 8, 8],
    }
    assert contents["clock"] == "sigma"
    path = tmp_path / "stages.json"
    path.write_text(json.dumps(contents))
    assert Stages.load(path) == found.stages


@pytest.mark.parametrize(
    ("method", "expected"), [("timestep", (0.335, 0.67)), ("snr", (0.35, 0.71))]
)
def test_stages_by_distance_need_no_data(
    few_digits: Images, method: str, expected: tuple[float, float]
) -> None:
    found = cluster(few_digits, VP(), ClusterOptions(method=method))  # type: ignore[arg-type]
    assert [float(VP().to_clock(b)) for b in found.stages.boundaries] == pytest.approx(
        expected, abs=1e-3
    )
    assert found.to_json(few_digits, "vp")["curves"] == {}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stages", [1, 2, 5])
def test_stages_by_distance_on_every_schedule(few_digits: Images, name: str, stages: int) -> None:
    for method in ("timestep", "snr"):
        found = cluster(
            few_digits, SCHEDULES[name], ClusterOptions(method=method, stages=stages)
        ).stages
        assert len(found) == stages
        for stage in range(stages):
            assert 0.45 / stages < found.share(SCHEDULES[name], stage) < 1.55 / stages


def test_similarity_is_the_definition(few_digits: Images) -> None:
    sigmas = torch.tensor([0.1, 0.6, 3.0], dtype=torch.float64)
    options = replace(OPTIONS, pairs=3, stages=2)
    (found,) = agreement(few_digits, sigmas, options)
    data = few_digits.pixels[:].double() / 255
    for pair, image in enumerate(np.random.default_rng((0, 0, 1)).permutation(50)[:3]):
        n = torch.from_numpy(np.random.default_rng((0, pair)).standard_normal((1, 8, 8)))
        eps = [
            (x - OptimalDenoiser(data)(x[None], s)[0]) / s
            for s in sigmas.tolist()
            for x in [data[image] + s * n]
        ]
        for a in range(3):
            for b in range(3):
                same = ((eps[a] - eps[b]).abs() <= options.eta).double().mean()
                assert found.similarity is not None
                assert found.similarity[pair, a, b] == pytest.approx(float(same), abs=2 / 64)


@pytest.mark.parametrize("stages", [1, 2, 4, 6])
def test_any_number_of_stages(digits: Images, stages: int) -> None:
    found = cluster(digits, VP(), replace(OPTIONS, stages=stages))
    assert len(found.stages) == stages
    assert len(found.ci95) == stages - 1
    assert all(
        low <= b <= high for (low, high), b in zip(found.ci95, found.stages.boundaries, strict=True)
    )
    similarity = found.within_stage_similarity()
    assert similarity == sorted(similarity)
    assert 0 < similarity[0] < similarity[-1] <= 1
    assert found.agreement is not None
    assert found.agreement.similarity is not None
    mean = found.agreement.similarity
    np.testing.assert_allclose(mean, mean.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(mean), 1)


def test_curves_that_never_agree_are_an_error(digits: Images) -> None:
    with pytest.raises(BadInput, match="smallest noise"):
        cluster(digits, VP(), replace(OPTIONS, eta=1e-9, alpha=1.0))


def test_stages_that_overlap_are_an_error(few_digits: Images) -> None:
    with pytest.raises(BadInput, match="overlap"):
        cluster(Images(few_digits.pixels[:1]), VP(), OPTIONS)


@pytest.mark.parametrize(
    "bad",
    [
        {"alpha": 0},
        {"alpha": 1.5},
        {"eta": 0},
        {"pairs": 0},
        {"levels": 2},
        {"stages": 0},
        {"stages": 99},
        {"ci_width": 0},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        ClusterOptions(**bad)  # type: ignore[arg-type]


def test_unit_range_is_twice_the_pixel_range() -> None:
    ends = to_unit_range(torch.tensor([0, 255], dtype=torch.uint8))
    assert ends.tolist() == [-1, 1]


def test_a_model_is_not_needed_and_not_minded(few_digits: Images, run_config: RunConfig) -> None:
    model = Model(build_denoiser(run_config.model), run_config.model, 0)
    options = replace(OPTIONS, pairs=8, alpha=0.8)
    assert cluster(few_digits, VP(), options, model).stages == (
        cluster(few_digits, VP(), options).stages
    )
