"""Folders of samples of any number of channels and of chosen classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.data import ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.samples import read_images
from multistage_diffusion.model import Model, ModelConfig, build_denoiser
from multistage_diffusion.sampling import SampleOptions, generate
from multistage_diffusion.sampling.draw import drawn_classes, labels_of
from multistage_diffusion.sampling.folder import draw_samples
from tests.conftest import MODEL, disturb

FEW = SampleOptions(steps=2)


def untrained(config: ModelConfig) -> Model:
    return Model(disturb(build_denoiser(config)).eval(), config, 0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_all_channels_are_kept_and_evaluate_reads_them(tmp_path: Path, channels: int) -> None:
    model = untrained(replace(MODEL, shape=(channels, 8, 8)))
    folder = draw_samples(model, FEW, 3, 2, tmp_path / "drawn")
    drawn = generate(model, FEW, range(3))
    read = read_images(tmp_path / "drawn", 2, model.config.shape, ReadOptions())
    assert int((read.pixels[:].int() - drawn[:2].int()).abs().max()) <= 1
    with Image.open(folder.image(0)) as image:
        assert image.mode == {1: "L", 2: "L", 4: "RGBA"}.get(channels, "RGB")
    assert folder.grid.exists()
    assert folder.missing(4) == [3]


def test_bands_are_chosen_for_the_preview(tmp_path: Path) -> None:
    model = untrained(replace(MODEL, shape=(5, 8, 8)))
    folder = draw_samples(model, FEW, 1, 1, tmp_path / "drawn", bands=(5, 1, 2))
    stored = np.load(folder.array(0))
    with Image.open(folder.image(0)) as image:
        np.testing.assert_array_equal(np.asarray(image), stored[[4, 0, 1]].transpose(1, 2, 0))
    for bands in ((6,), (1, 2), (0, 1, 2)):
        with pytest.raises(BadInput, match="--bands takes 1 or 3 numbers from 1 to 5"):
            draw_samples(model, FEW, 1, 1, tmp_path / "other", bands=bands)


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    options = replace(FEW, sigma_min=80.0, sigma_max=1.0)
    with pytest.raises(BadInput, match="--sigma-min must be above 0 and below --sigma-max"):
        draw_samples(untrained(MODEL), options, 1, 1, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()


def test_classes_are_drawn_by_name_or_number() -> None:
    config = replace(MODEL, classes=3, class_names=("cat", "7", "dog"), class_numbers=(2, 5, 9))
    model = untrained(config)

    def drawn(*turns: str | int) -> list[int]:
        return drawn_classes(config, replace(FEW, turns=turns))

    assert drawn("cat", "dog", 5, "7", 2) == [0, 2, 1, 1, 0]
    assert drawn() == [0, 1, 2]
    labels = labels_of(model, replace(FEW, turns=("dog", "cat")), range(3))
    assert labels is not None
    assert labels.tolist() == [2, 0, 2]
    for unknown in ("bird", 0, 1):
        with pytest.raises(BadInput, match=rf"no class {unknown}: .* 2 cat, 5 7, 9 dog"):
            drawn(unknown)
    with pytest.raises(BadInput, match="not both"):
        SampleOptions(label="cat", turns=("dog",))


def write(folder: Path, count: int, side: int = 8, channels: int = 3) -> torch.Tensor:
    """A folder of images, and their pixels."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, side, side, channels), dtype=np.uint8
    )
    for number, array in enumerate(pixels):
        Image.fromarray(array.squeeze()).save(folder / f"{number}.png")
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_generated_images_are_read_like_the_real_ones(tmp_path: Path) -> None:
    write(tmp_path / "large", 4, side=12)
    (tmp_path / "large" / "4.png").write_bytes(b"broken")
    with pytest.raises(BadInput, match="--skip-broken"):
        read_images(tmp_path / "large", None, (3, 8, 8), ReadOptions(size=(8,)))
    options = ReadOptions(size=(8,), fit="resize", skip_broken=True)
    images = read_images(tmp_path / "large", 3, (3, 8, 8), options)
    assert (len(images), images.resized, len(images.skipped)) == (3, 4, 1)
    with pytest.raises(BadInput, match="holds 4 images, fewer than the 5"):
        read_images(tmp_path / "large", 5, (3, 8, 8), options)
    options = ReadOptions(skip_broken=True)
    with pytest.raises(BadInput, match=r"3x12x12 .*, the real ones 3x8x8"):
        read_images(tmp_path / "large", None, (3, 8, 8), options)


def test_grey_against_colour_is_reported(tmp_path: Path) -> None:
    grey = write(tmp_path / "grey", 2, channels=1)
    images = read_images(tmp_path / "grey", None, (3, 8, 8), ReadOptions())
    assert torch.equal(images.pixels[:], grey.expand(-1, 3, -1, -1))
    assert "the 2 generated images are grey, the real ones coloured" in images.notes[-1]
    write(tmp_path / "colour", 2)
    with pytest.raises(BadInput, match=r"2 of the 2 images of .* are coloured"):
        read_images(tmp_path / "colour", None, (1, 8, 8), ReadOptions())
    (tmp_path / "stored").mkdir()
    with Image.open(tmp_path / "grey" / "0.png") as image:
        image.convert("RGB").save(tmp_path / "stored" / "0.png")
    images = read_images(tmp_path / "stored", None, (1, 8, 8), ReadOptions())
    assert torch.equal(images.pixels[:], grey[:1])


def test_arrays_of_unequal_sizes_are_resized_or_named(tmp_path: Path) -> None:
    for number, size in enumerate((4, 6)):
        np.save(tmp_path / f"{number:06}.npy", np.zeros((5, size, size), np.uint8))
    images = read_images(tmp_path, None, (5, 4, 4), ReadOptions(size=(4,)))
    assert (len(images), images.shape, images.resized) == (2, (5, 4, 4), 1)
    with pytest.raises(BadInput, match=r"000001\.npy is \[5, 6, 6\].*give --size"):
        read_images(tmp_path, None, (5, 4, 4), ReadOptions())
