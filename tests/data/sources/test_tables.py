from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput

FEATURES = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}


@pytest.fixture
def table(folder: Path) -> datasets.Dataset:
    """The folder's images as a table with a second, textual label."""
    files = sorted(folder.rglob("*.png"))
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    columns = {"colour": [("red", "blue")[k % 2] for k in range(len(files))], "picture": cells}
    kinds = {
        "kind": [int(file.parent.name == "dog") for file in files],
        "weight": [0.5] * len(files),
    }
    features = {"colour": datasets.Value("string"), **FEATURES, "weight": datasets.Value("float32")}
    return datasets.Dataset.from_dict({**columns, **kinds}, features=datasets.Features(features))


def test_every_form_of_a_table_is_the_folder(
    folder: Path, table: datasets.Dataset, tmp_path: Path
) -> None:
    images = load(folder)
    table.to_parquet(tmp_path / "one.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"only": table}).save_to_disk(tmp_path / "parts")
    (tmp_path / "shards" / "data").mkdir(parents=True)
    for shard in range(3):
        part = table.select(range(4 * shard, 4 * shard + 4))
        part.to_parquet(tmp_path / "shards" / "data" / f"train-{shard:05d}-of-00003.parquet")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    (tmp_path / "arrows").mkdir()
    (tmp_path / "arrows" / "set.arrow").write_bytes(arrow.read_bytes())
    for name in (
        "one.parquet",
        "saved",
        "parts",
        "shards",
        "shards/data/train-*.parquet",
        f"saved/{arrow.name}",
        "arrows",
    ):
        found = load(str(tmp_path / name))
        assert found.fingerprint == images.fingerprint, name
        assert found.classes == images.classes, name


def test_a_column_of_texts_or_numbers_may_be_the_label(
    table: datasets.Dataset, tmp_path: Path
) -> None:
    table.to_parquet(tmp_path / "set.parquet")
    images = load(tmp_path / "set.parquet", ReadOptions(label_column="colour"))
    assert images.labels is not None
    assert images.classes == ("blue", "red")
    assert images.labels.tolist() == [1, 0] * 6
    for column, says in (
        ("weight", "row 0 has 0.5 in the column weight"),
        ("none", "no column 'none'"),
    ):
        with pytest.raises(BadInput, match=says):
            load(tmp_path / "set.parquet", ReadOptions(label_column=column))


def test_parts_are_chosen(table: datasets.Dataset, tmp_path: Path) -> None:
    few = table.select([3, 1])
    datasets.DatasetDict({"train": table, "test": few}).save_to_disk(tmp_path / "saved")
    few.save_to_disk(tmp_path / "few")
    train, test = load(tmp_path / "saved"), load(tmp_path / "saved", ReadOptions(split="test"))
    assert len(train) == 12
    assert train.notes == ("the part train is read, not test (--split)",)
    assert test.fingerprint == load(tmp_path / "few").fingerprint
    with pytest.raises(BadInput, match="has the parts train, test"):
        load(tmp_path / "saved", ReadOptions(split="validation"))


def test_parts_of_a_folder_of_shards_do_not_mix(table: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name, rows in (("train", range(8)), ("test", range(8, 12))):
        table.select(rows).to_parquet(tmp_path / "shards" / f"{name}-00000-of-00001.parquet")
    images = load(tmp_path / "shards")
    assert len(images) == 8
    assert images.notes == ("the part train is read, not test (--split)",)
    assert len(load(tmp_path / "shards", ReadOptions(split="test"))) == 4


def test_a_name_that_is_no_path_is_asked_for_on_the_hub(
    folder: Path, table: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_dataset(name: str) -> datasets.DatasetDict:
        asked.append(name)
        return datasets.DatasetDict({"train": table})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load("somebody/animals").fingerprint == load(folder).fingerprint
    assert load("animals").source == "animals"
    assert asked == ["somebody/animals", "animals"]
    for name in ("nowhere/at/all", "./animals", "missing.zip"):
        with pytest.raises(BadInput, match="no folder or file"):
            load(name)
    assert len(asked) == 2


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str) -> datasets.DatasetDict:
        raise ConnectionError(f"Couldn't reach '{name}'\n on the Hub (offline).")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        BadInput,
        match=r"no folder or file animals, and no data set .*: Couldn't reach 'animals' on the Hub",
    ):
        load("animals")


def test_images_that_a_table_only_points_to(folder: Path, tmp_path: Path) -> None:
    files = [str(file) for file in sorted(folder.rglob("*.png"))]
    features = datasets.Features({"picture": datasets.Image()})
    datasets.Dataset.from_dict({"picture": files}, features=features).save_to_disk(
        tmp_path / "saved"
    )
    np.testing.assert_array_equal(load(tmp_path / "saved").pixels[:], load(folder).pixels[:])


def test_a_row_without_an_image_is_broken(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((2, 2), np.uint8))
    features = datasets.Features({"picture": datasets.Image()})
    datasets.Dataset.from_dict({"picture": [image, None]}, features=features).to_parquet(
        tmp_path / "set.parquet"
    )
    with pytest.raises(BadInput, match="row 1: the row holds no image"):
        load(tmp_path / "set.parquet")
    assert len(load(tmp_path / "set.parquet", ReadOptions(skip_broken=True))) == 1
