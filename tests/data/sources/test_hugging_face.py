from pathlib import Path

import datasets
import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput


def test_every_form_of_a_table_is_read_like_the_folder(
    folder: Path, table: datasets.Dataset, tmp_path: Path
) -> None:
    images = load(folder)
    table.to_parquet(tmp_path / "one.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"only": table}).save_to_disk(tmp_path / "splits")
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
        "splits",
        "shards",
        "shards/data/train-*.parquet",
        f"saved/{arrow.name}",
        "arrows",
    ):
        again = load(str(tmp_path / name))
        assert again.fingerprint == images.fingerprint, name
        assert again.classes == images.classes, name


def test_splits_are_chosen(table: datasets.Dataset, tmp_path: Path) -> None:
    few = table.select([3, 1])
    datasets.DatasetDict({"train": table, "test": few}).save_to_disk(tmp_path / "saved")
    few.save_to_disk(tmp_path / "few")
    train = load(tmp_path / "saved")
    test = load(tmp_path / "saved", ReadOptions(split="test"))
    assert len(train) == 12
    assert train.notes == ("the part train is read, not test (--split)",)
    assert test.fingerprint == load(tmp_path / "few").fingerprint
    with pytest.raises(BadInput, match="has the parts train, test"):
        load(tmp_path / "saved", ReadOptions(split="validation"))


def test_splits_of_a_folder_of_files_do_not_mix(table: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name, rows in (("train", range(8)), ("test", range(8, 12))):
        table.select(rows).to_parquet(tmp_path / "shards" / f"{name}-00000-of-00001.parquet")
    images = load(tmp_path / "shards")
    assert len(images) == 8
    assert images.notes == ("the part train is read, not test (--split)",)
    assert len(load(tmp_path / "shards", ReadOptions(split="test"))) == 4


def test_a_name_that_is_no_path_is_looked_for_on_the_hub(
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


def test_hidden_files_are_no_parts_of_a_folder_of_tables(
    table: datasets.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    plain = table.cast_column("kind", datasets.Value("int64"))
    plain.to_parquet(tmp_path / "set" / "train-0.parquet")
    (tmp_path / "set" / "._train-0.parquet").write_bytes(b"\0\5\x16\7")
    images = load(tmp_path / "set")
    assert len(images) == 12
    assert images.notes == (
        "no labels: no column has the type of class labels; --label-column chooses one of "
        "colour, kind, weight",
    )


def test_arrow_files_of_unequal_types_are_refused(table: datasets.Dataset, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    other = table.cast_column("weight", datasets.Value("string"))
    for name, part in (("0", table), ("1", other)):
        part.save_to_disk(tmp_path / name)
        (arrow,) = (tmp_path / name).glob("*.arrow")
        arrow.rename(tmp_path / "set" / f"{name}.arrow")
    with pytest.raises(BadInput, match=r"^Cannot read .*set: ValueError, The features"):
        load(tmp_path / "set")


def test_a_column_of_several_images_is_refused(table: datasets.Dataset, tmp_path: Path) -> None:
    cells = [
        [cell, cell]
        for cell in table.cast_column("picture", datasets.Image(decode=False))["picture"]
    ]
    features = datasets.Features({"pictures": datasets.List(datasets.Image())})
    datasets.Dataset.from_dict({"pictures": cells}, features=features).save_to_disk(tmp_path / "a")
    with pytest.raises(BadInput, match="has list in the column pictures"):
        load(tmp_path / "a", ReadOptions(image_key="pictures"))
