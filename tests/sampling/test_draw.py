from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.data.png import grid_image, save_png, to_image
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.sampling.calls import evaluations_per_stage, sampling_grid
from multistage_diffusion.sampling.draw import generate
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.schedule import VP
from multistage_diffusion.training.config import RunConfig
from tests.conftest import disturb


@pytest.fixture
def model(denoiser: NetworkDenoiser, run_config: RunConfig) -> Model:
    return Model(denoiser, run_config.model, 24)


@pytest.fixture
def conditional(run_config: RunConfig) -> Model:
    config = replace(run_config, model=replace(run_config.model, classes=3))
    return Model(disturb(build_denoiser(config.model)).eval(), config.model, 24)


FEW = SampleOptions(steps=4)


def test_an_image_depends_on_seed_and_index_only(model: Model) -> None:
    whole = generate(model, FEW, range(6))
    assert whole.dtype == torch.uint8
    parts = torch.cat([generate(model, FEW, part) for part in ([0], [1, 2], [3, 4, 5])])
    assert int((whole.int() - parts.int()).abs().max()) <= 1  # rounding of the last bit
    assert not torch.equal(generate(model, replace(FEW, seed=1), range(6)), whole)


def test_classes_take_turns_unless_one_is_chosen(conditional: Model) -> None:
    turns = generate(conditional, FEW, range(6))
    for label in range(3):
        chosen = generate(conditional, replace(FEW, label=label), range(6))
        assert int((chosen[label::3].int() - turns[label::3].int()).abs().max()) <= 1
        assert not torch.equal(chosen, turns)


def test_unknown_classes_are_refused(model: Model, conditional: Model) -> None:
    with pytest.raises(BadInput, match="classes 0 to 2"):
        generate(conditional, replace(FEW, label=3), [0])
    with pytest.raises(BadInput, match="unconditional"):
        generate(model, replace(FEW, label=0), [0])


def test_evaluations_are_those_of_the_paper(
    denoiser: NetworkDenoiser, run_config: RunConfig
) -> None:
    """Heun with 18 steps takes 35 evaluations; with the paper's boundaries 9, 2 and 7 of the steps
    begin in stages 1 to 3."""
    config = replace(run_config, model=replace(run_config.model, boundaries=(2.5103, 7.6577)))
    model = Model(build_denoiser(config.model), config.model, 0)
    assert sum(evaluations_per_stage(model.config, SampleOptions())) == 35
    assert evaluations_per_stage(model.config, SampleOptions(solver="ddim")) == [9, 2, 7]


def test_png_files_keep_every_pixel(tmp_path: Path) -> None:
    for channels in (1, 3):
        pixels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
        save_png(tmp_path / "image.png", to_image(pixels))
        array = np.asarray(Image.open(tmp_path / "image.png")).reshape(5, 7, channels)
        np.testing.assert_array_equal(array, pixels.permute(1, 2, 0))


def test_a_grid_holds_all_images_in_reading_order() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 40, 40)
    grid = np.asarray(grid_image(pixels, columns=3))
    assert grid.shape == (2 * 82 - 2, 3 * 82 - 2)
    assert [int(grid[82 * (k // 3), 82 * (k % 3)]) for k in range(5)] == [0, 1, 2, 3, 4]
    assert grid_image(pixels[:, :, :8, :8], columns=5).size[1] >= 48


def test_a_model_is_moved_outside_of_inference_mode(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved inside, its weights would be inference tensors, which cannot be trained."""
    modes = []

    def moved(self: NetworkDenoiser, _: object) -> NetworkDenoiser:
        modes.append(torch.is_inference_mode_enabled())
        return self

    monkeypatch.setattr(NetworkDenoiser, "to", moved)
    generate(model, FEW, [0])
    assert modes == [False]


def test_grids_end_where_asked(model: Model, tmp_path: Path) -> None:
    """DPM-Solver's published grid ends at t = 1e-4, below the smallest level of training."""
    config = replace(model.config, schedule="vp")
    last = float(VP().from_clock(1e-4))
    for name in ("karras", "log-snr", "time"):
        options = SampleOptions(grid=name, steps=7, sigma_min=last, sigma_max=9.0)
        grid = sampling_grid(config, options)
        assert (float(grid[0]), float(grid[-2])) == pytest.approx((9.0, last))
    times = VP().to_clock(grid[:-1])
    torch.testing.assert_close(times.diff(), times.diff()[:1].expand(6))
    (tmp_path / "levels.txt").write_text("80 10\n1 0.1\n0\n")
    given = sampling_grid(config, SampleOptions(grid=tmp_path / "levels.txt"))
    assert given.tolist() == [80, 10, 1, 0.1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 90.0}, "must be above 0 and below --sigma-max, not 90.0 and 80.0"),
        ({"sigma_min": 0.1, "levels": (2.0, 1.0)}, "have their own ends"),
        ({"sigma_max": 0.1, "grid": "step"}, "have their own ends"),
        ({"grid": Path("missing")}, "no grid missing: it is none of karras"),
        ({"grid": Path(__file__)}, "is no list of noise levels"),
    ],
    ids=str,
)
def test_grids_that_cannot_be_are_refused(
    model: Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        sampling_grid(model.config, SampleOptions(**options))
