from pathlib import Path

import datasets
import numpy as np
import pytest

from multistage_diffusion.data import load
from multistage_diffusion.errors import BadInput
from tests.data.sources.conftest import png


def test_image_and_label_features_are_read(tmp_path: Path) -> None:
    rngs = [np.random.default_rng(k) for k in range(3)]
    arrays = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for rng in rngs]
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])}
    )
    cells = [{"bytes": png(array), "path": None} for array in arrays]
    columns = {"picture": cells, "kind": [1, 0, 1]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "set.parquet")
    images = load(tmp_path / "set.parquet")
    np.testing.assert_array_equal(images.pixels[:].permute(0, 2, 3, 1), np.stack(arrays))
    assert images.classes == ("a", "b")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 1]


def test_a_damaged_image_is_named_by_its_row(tmp_path: Path) -> None:
    cells = [
        {"bytes": png(np.zeros((4, 4), dtype=np.uint8)), "path": None},
        {"bytes": b"no image", "path": None},
    ]
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": cells}, features=features)
    table.to_parquet(tmp_path / "set.parquet")
    with pytest.raises(BadInput, match=r"set\.parquet row 1"):
        load(tmp_path / "set.parquet")


def test_a_table_without_images_is_refused_with_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(BadInput, match="text"):
        load(tmp_path / "set.parquet")


def test_a_file_that_is_damaged_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    with pytest.raises(BadInput, match=r"^Cannot read .*a\.parquet: .*[^.]\.$") as caught:
        load(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)
