import io
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multistage_diffusion.data import Images, load, to_pixels, to_unit_range
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.errors import BadInput
from multistage_diffusion.presets import PRESETS, plan_run
from multistage_diffusion.space import LATENTS
from multistage_diffusion.stages import Stages


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_digits_are_the_1797_of_scikit_learn(digits: Images) -> None:
    from sklearn.datasets import load_digits

    assert digits.shape == (1, 8, 8)
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    np.testing.assert_allclose(
        digits.pixels[:][:, 0].double().numpy() * 16 / 255, load_digits().images, atol=1 / 31
    )


def test_a_folder_gives_pixels_and_labels_from_subfolders(folder: Path) -> None:
    images = load(folder)
    assert images.shape == (3, 8, 8)
    assert images.classes == ("cat", "dog")
    assert images.labels is not None
    for index, (file, label) in enumerate(
        zip(sorted(folder.rglob("*.png")), images.labels.tolist(), strict=True)
    ):
        np.testing.assert_array_equal(
            images.pixels[index].permute(1, 2, 0), np.asarray(Image.open(file))
        )
        assert images.classes[label] == file.parent.name


def test_a_flat_folder_has_no_labels_and_may_be_grey(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(np.full((4, 6), index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    images = load(tmp_path)
    assert images.shape == (1, 4, 6)
    assert images.labels is None
    assert images.pixels[:][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_black_and_white_and_palette_images_are_converted(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bw.png")
    assert load_image(tmp_path / "bw.png").tolist() == (255 * np.eye(4, dtype=int)[None]).tolist()
    colour = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE).save(
        tmp_path / "palette.png"
    )
    assert load_image(tmp_path / "palette.png").permute(1, 2, 0).tolist() == colour.tolist()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_npz_round_trip(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.array([0, 2, 1, 0, 2]))
    images = load(tmp_path / "set.npz")
    np.testing.assert_array_equal(images.pixels[:].permute(0, 2, 3, 1), pixels)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2, 1, 0, 2]
    assert images.classes == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 3)])
def test_a_mapped_file_is_read_like_a_tensor(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "set.npy", pixels)
    np.savez(tmp_path / "set.npz", images=pixels)
    mapped, whole = load(tmp_path / "set.npy"), load(tmp_path / "set.npz")
    assert mapped.shape == whole.shape
    assert mapped.fingerprint == whole.fingerprint
    assert mapped.standard_deviation == pytest.approx(whole.standard_deviation)
    for index in (
        slice(None),
        slice(1, 4),
        slice(0, 5, 2),
        slice(3, 3),
        torch.tensor([4, 0, 0]),
        2,
        -1,
    ):
        torch.testing.assert_close(mapped.pixels[index], whole.pixels[index])


def test_latents_keep_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 4, 2, 2)).astype(np.float16)
    np.save(tmp_path / "latents.npy", values)
    latents = load(tmp_path / "latents.npy")
    assert latents.space is LATENTS
    torch.testing.assert_close(to_unit_range(latents.pixels[:]), torch.from_numpy(values).float())
    assert latents.standard_deviation == pytest.approx(values.astype(np.float64).std())
    with pytest.raises(BadInput, match="latents"):
        plan_run(PRESETS["small"], latents, Stages((1.0, 2.0)), "latents.npy")


def test_npz_without_channels_is_grey(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((5, 4, 6), dtype=np.uint8))
    assert load(tmp_path / "set.npz").shape == (1, 4, 6)


def test_parquet_with_image_and_label_features(tmp_path: Path) -> None:
    import datasets

    arrays = [
        np.random.default_rng(k).integers(0, 256, (4, 4, 3), dtype=np.uint8) for k in range(3)
    ]
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])}
    )
    cells = [{"bytes": png(array), "path": None} for array in arrays]
    datasets.Dataset.from_dict({"picture": cells, "kind": [1, 0, 1]}, features=features).to_parquet(
        tmp_path / "set.parquet"
    )
    images = load(tmp_path / "set.parquet")
    np.testing.assert_array_equal(images.pixels[:].permute(0, 2, 3, 1), np.stack(arrays))
    assert images.classes == ("a", "b")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 1]


def test_parquet_with_a_damaged_image_names_the_row(tmp_path: Path) -> None:
    import datasets

    cells = [
        {"bytes": png(np.zeros((4, 4), dtype=np.uint8)), "path": None},
        {"bytes": b"no image", "path": None},
    ]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(
        tmp_path / "set.parquet"
    )
    with pytest.raises(BadInput, match=r"set\.parquet row 1"):
        load(tmp_path / "set.parquet")


def test_parquet_without_images_names_its_columns(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(BadInput, match="text"):
        load(tmp_path / "set.parquet")


def test_the_fingerprint_is_of_the_content(folder: Path, digits: Images) -> None:
    images = load(folder)
    again = Images(images.pixels[:].clone(), images.labels, images.classes, "elsewhere")
    assert again.fingerprint == images.fingerprint
    assert Images(images.pixels).fingerprint != images.fingerprint
    assert Images(images.pixels[:].flip(0), images.labels).fingerprint != images.fingerprint
    assert (
        Images(images.pixels[:].reshape(12, 3, 4, 16)).fingerprint
        != Images(images.pixels[:]).fingerprint
    )
    assert digits.fingerprint == "ac2213023a1dd19f"


@given(st.integers(0, 255))
def test_the_range_is_minus_one_to_one_and_back(value: int) -> None:
    pixels = torch.tensor([value], dtype=torch.uint8)
    assert to_pixels(to_unit_range(pixels)).tolist() == [value]
    assert -1 <= float(to_unit_range(pixels)) <= 1


def test_values_out_of_range_are_clipped() -> None:
    assert to_pixels(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_standard_deviation_is_that_of_the_values(digits: Images) -> None:
    expected = float(to_unit_range(digits.pixels[:], torch.float64).std(correction=0))
    assert digits.standard_deviation == pytest.approx(expected, rel=1e-9)


def test_bad_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no images")
    (tmp_path / "bad.npz").write_bytes(b"PK no zip")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    (tmp_path / "bad.arrow").write_bytes(b"no arrow")
    with ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", "no image")
    np.savez(tmp_path / "float.npz", images=np.zeros((2, 4, 4)))
    np.save(tmp_path / "five.npy", np.zeros((2, 4, 4, 5, 5), dtype=np.uint8))
    np.save(tmp_path / "order.npy", np.asfortranarray(np.zeros((2, 4, 4), dtype=np.uint8)))
    np.save(tmp_path / "short.npy", np.zeros((9, 4, 4), dtype=np.uint8))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-1])
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.savez(
        tmp_path / "labels.npz",
        images=np.zeros((2, 4, 4), dtype=np.uint8),
        labels=np.zeros(3, dtype=int),
    )
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 4, 4), dtype=np.uint8))
    says = {
        "nowhere": "no folder or file",
        "empty": "holds no images",
        "notes.txt": "not a data set",
        "bad.npz": "Cannot read",
        "bad.parquet": "Cannot read",
        "float.npz": "uint8",
        "five.npy": "uint8",
        "order.npy": "uint8",
        "short.npy": "ends before the last of its 9 images",
        "bad.npy": "Cannot read",
        "labels.npz": "2 integers",
        "none.npz": "holds no images",
        "bad.zip": "Cannot read",
        "bad.tar": "Cannot read",
        "texts.zip": "holds no images",
        "bad.arrow": "Cannot read",
        "{0..2}.tar": "no file .*0.tar, of 3",
        "*.txt": "may stand for .tar files or for .parquet files",
    }
    for name, message in says.items():
        with pytest.raises(BadInput, match=message) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
