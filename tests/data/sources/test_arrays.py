from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.presets import PRESETS, configure_run
from multistage_diffusion.space import LATENTS
from multistage_diffusion.stages import Stages


def test_digits_are_the_1797_of_scikit_learn(digits: Images) -> None:
    from sklearn.datasets import load_digits

    assert digits.shape == (1, 8, 8)
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    sixteenths = digits.pixels[:][:, 0].double().numpy() * 16 / 255
    np.testing.assert_allclose(sixteenths, load_digits().images, atol=1 / 31)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_npz_round_trip(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 10, 12, channels), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.array([0, 2, 1, 0, 2]))
    images = load(tmp_path / "set.npz")
    np.testing.assert_array_equal(images.pixels[:].permute(0, 2, 3, 1), pixels)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2, 1, 0, 2]
    assert images.classes == ("0", "1", "2")


def test_npz_without_channels_is_grey(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((5, 4, 6), dtype=np.uint8))
    assert load(tmp_path / "set.npz").shape == (1, 4, 6)


def test_latents_keep_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 4, 2, 2)).astype(np.float16)
    np.save(tmp_path / "latents.npy", values)
    latents = load(tmp_path / "latents.npy", ReadOptions(latents=True))
    assert latents.space is LATENTS
    torch.testing.assert_close(to_unit_range(latents.pixels[:]), torch.from_numpy(values).float())
    assert latents.standard_deviation == pytest.approx(values.astype(np.float64).std())
    with pytest.raises(BadInput, match="latents"):
        configure_run(PRESETS["small"], latents, Stages((1.0, 2.0)), "latents.npy")


def test_arrays_are_resized_like_files(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (5, 9, 12, 3), dtype=np.uint8)
    (tmp_path / "files").mkdir()
    for index, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / "files" / f"{index}.png")
    np.savez(tmp_path / "set.npz", images=arrays)
    np.save(tmp_path / "set.npy", arrays)
    options = ReadOptions(size=(6, 6))
    expected = load(tmp_path / "files", options)
    for name in ("set.npz", "set.npy"):
        assert load(tmp_path / name, options).fingerprint == expected.fingerprint
    np.save(tmp_path / "latents.npy", np.zeros((2, 4, 9, 9), np.float32))
    with pytest.raises(BadInput, match="latents, which cannot be resized"):
        load(tmp_path / "latents.npy", replace(options, latents=True))


def test_each_channel_is_resized_separately(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 5), dtype=np.uint8)
    np.savez(tmp_path / "all.npz", images=arrays)
    np.savez(tmp_path / "one.npz", images=arrays[..., 3])
    options = ReadOptions(size=(6, 6), fit="resize")
    every = load(tmp_path / "all.npz", options).pixels[:]
    alone = load(tmp_path / "one.npz", options).pixels[:]
    torch.testing.assert_close(every[:, 3:4], alone)


def test_labels_of_arrays_are_whole_numbers(tmp_path: Path) -> None:
    arrays = np.zeros((3, 8, 8), np.uint8)
    np.savez(tmp_path / "whole.npz", images=arrays, labels=[0.0, 2.0, 1.0])
    assert load(tmp_path / "whole.npz").class_numbers == (0, 1, 2)
    wrong = {"not float64": [0.0, 1.0, np.nan], "labels 2 has the label -1": [0, 1, -1]}
    for message, labels in wrong.items():
        np.savez(tmp_path / "wrong.npz", images=arrays, labels=np.array(labels))
        with pytest.raises(BadInput, match=message):
            load(tmp_path / "wrong.npz")


def test_an_array_without_images_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(BadInput, match=r"a\.npy holds no images: its shape is \[0, 8, 8\]"):
        load(tmp_path / "a.npy")


def test_a_size_that_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2000, 8, 8), np.uint8))
    with pytest.raises(
        BadInput, match=r"Resizing .*a\.npy needs about 8,000\.0 GiB of memory, and"
    ):
        load(tmp_path / "a.npy", ReadOptions(size=(65536, 65536)))


def test_labels_of_arrays_may_be_bytes_or_truth_values(tmp_path: Path) -> None:
    arrays = np.zeros((3, 8, 8), np.uint8)
    for labels, classes in (
        (["caf\xe9".encode(), b"b", b"b"], ("b", "caf\xe9")),
        ([b"caf\xe9", b"b", b"b"], ("b", "caf\\xe9")),
        ([True, False, False], ("0", "1")),
    ):
        np.savez(tmp_path / "a.npz", images=arrays, labels=np.array(labels))
        images = load(tmp_path / "a.npz")
        assert images.classes == classes
        assert images.class_numbers == (0, 1)
        assert images.labels is not None
        assert images.labels.tolist() == [1, 0, 0]


def test_a_file_of_arrays_without_images_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.zeros(0))
    with pytest.raises(BadInput, match=r"a\.npz holds no images: its shape is \[0, 8, 8, 3\]"):
        load(tmp_path / "a.npz")


def test_values_outside_of_a_range_by_rounding_belong_to_it(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    values[0, 0, 0], values[0, -1, -1] = -1e-4, 1.0001
    for black, white in ((0, 1), (-1, 1), (0, 255)):
        np.save(tmp_path / "a.npy", values * (white - black) + black)
        images = load(tmp_path / "a.npy")
        assert f": {black}..{white} became 0..255" in images.notes[0]
        assert load(tmp_path / "a.npy", ReadOptions(value_range=(black, white))) is not None
    np.save(tmp_path / "a.npy", values * 1.01)
    with pytest.raises(BadInput, match="none of the ranges"):
        load(tmp_path / "a.npy")


def test_floating_point_values_far_below_255_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(64.0).reshape(1, 8, 8) / 63 * 16)
    with pytest.raises(BadInput, match=r"from 0 \(image 0\) to 16 \(image 0\).*--value-range"):
        load(tmp_path / "a.npy")
    assert load(tmp_path / "a.npy", ReadOptions(value_range=(0, 16))).pixels[:].max() == 255


def test_an_array_in_fortran_order_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(np.zeros((3, 8, 8), np.uint8)))
    with pytest.raises(BadInput, match="is stored in Fortran order"):
        load(tmp_path / "a.npy")
