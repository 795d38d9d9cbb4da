from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput


def test_a_column_of_texts_or_numbers_may_be_the_label(
    table: datasets.Dataset, tmp_path: Path
) -> None:
    table.to_parquet(tmp_path / "set.parquet")
    images = load(tmp_path / "set.parquet", ReadOptions(label_column="colour"))
    assert images.labels is not None
    assert images.classes == ("blue", "red")
    assert images.labels.tolist() == [1, 0] * 6
    refused = {"weight": "row 0 has 0.5 in the column weight", "none": "no column 'none'"}
    for column, message in refused.items():
        with pytest.raises(BadInput, match=message):
            load(tmp_path / "set.parquet", ReadOptions(label_column=column))


def test_a_table_may_only_point_to_images(folder: Path, tmp_path: Path) -> None:
    files = [str(file) for file in sorted(folder.rglob("*.png"))]
    features = datasets.Features({"picture": datasets.Image()})
    pointers = datasets.Dataset.from_dict({"picture": files}, features=features)
    pointers.save_to_disk(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").pixels[:], load(folder).pixels[:])


def test_a_row_without_an_image_is_broken(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((2, 2), np.uint8))
    features = datasets.Features({"picture": datasets.Image()})
    table = datasets.Dataset.from_dict({"picture": [image, None]}, features=features)
    table.to_parquet(tmp_path / "set.parquet")
    with pytest.raises(BadInput, match="row 1: the row holds no image"):
        load(tmp_path / "set.parquet")
    assert len(load(tmp_path / "set.parquet", ReadOptions(skip_broken=True))) == 1


def test_a_cell_that_is_no_label_is_shown_in_part(table: datasets.Dataset, tmp_path: Path) -> None:
    table.to_parquet(tmp_path / "set.parquet")
    with pytest.raises(BadInput, match=r"row 0 has \{'bytes': .{60,75} in the column picture"):
        load(tmp_path / "set.parquet", ReadOptions(label_column="picture"))
