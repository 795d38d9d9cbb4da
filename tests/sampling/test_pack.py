import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.png import save_png, to_image
from multistage_diffusion.sampling.pack import pack

PIXELS = torch.randint(256, (5, 3, 6, 4), dtype=torch.uint8)
LABELS = [3, 1, 4, 1, 5]


def images(folder: Path, pixels: torch.Tensor) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{index:06d}.png" for index in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        save_png(path, to_image(image))
    return paths


def test_arrays_hold_the_images_in_order(tmp_path: Path) -> None:
    files = images(tmp_path / "png", PIXELS)
    pack("npy", files, None, tmp_path / "all.npy")
    assert np.array_equal(np.load(tmp_path / "all.npy"), PIXELS.permute(0, 2, 3, 1))
    pack("npz", files, LABELS, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as archive:
        assert np.array_equal(archive["arr_0"], PIXELS.permute(0, 2, 3, 1))
        assert archive["arr_1"].tolist() == LABELS


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_this_package_reads_the_file(form: str, tmp_path: Path) -> None:
    files = images(tmp_path / "png", PIXELS)
    pack(form, files, None, tmp_path / f"all.{form}")
    read = load(str(tmp_path / f"all.{form}"), ReadOptions()).pixels
    assert torch.equal(torch.stack([read[index] for index in range(len(PIXELS))]), PIXELS)


def test_datasets_reads_the_parquet_file(tmp_path: Path) -> None:
    from datasets import Dataset

    pack("parquet", images(tmp_path / "png", PIXELS), LABELS, tmp_path / "all.parquet")
    rows = Dataset.from_parquet(str(tmp_path / "all.parquet"), cache_dir=str(tmp_path / "cache"))
    assert rows["label"][:] == LABELS
    assert np.array_equal(np.asarray(rows[2]["image"]), PIXELS[2].permute(1, 2, 0))


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_memory_does_not_grow_with_the_number_of_images(form: str, tmp_path: Path) -> None:
    (file,) = images(tmp_path / "png", torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    pack(form, [file], None, tmp_path / "warm-up")
    tracemalloc.start()
    pack(form, [file] * 400, None, tmp_path / f"all.{form}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 * 3 * 64 * 64 / 4


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "all.npy"
    out.write_bytes(b"before")
    files = images(tmp_path / "png", PIXELS)
    files[3].write_bytes(b"no image")
    with pytest.raises(Exception, match="Cannot decode"):
        pack("npy", files, None, out)
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.npy", "png"]
