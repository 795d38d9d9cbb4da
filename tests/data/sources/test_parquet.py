from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput
from tests.data.sources.conftest import png

PICTURE = png(np.zeros((4, 4), dtype=np.uint8))


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


def write(target: Path, **columns: object) -> Path:
    """A parquet file of these columns."""
    pq.write_table(pa.table(columns), target)
    return target


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([[b"a"]], "list"),
        ([[{"bytes": b"a", "path": None}]], "list"),
        ([[[0, 1], [2, 3]]], "list"),
        ([10**15], "int"),
        ([0.5], "float"),
        ([{"picture": {"bytes": b"a"}}], "dict"),
    ],
)
def test_a_column_of_something_else_is_refused(
    cells: list[object], kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.parquet", image=[PICTURE], other=cells)
    with pytest.raises(BadInput, match=f"has {kind} in the column other"):
        load(path, ReadOptions(image_key="other"))


def test_images_may_be_bytes_in_a_field(tmp_path: Path) -> None:
    fields = [{"bytes": PICTURE}, {"bytes": PICTURE}]
    assert len(load(write(tmp_path / "a.parquet", image=fields))) == 2
    write(tmp_path / "b.parquet", image=[PICTURE])
    assert len(load(f"{tmp_path}/{{a,b}}.parquet", ReadOptions(cache=tmp_path / "cache"))) == 3


def test_paths_in_a_table_may_have_backslashes(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(PICTURE)
    assert len(load(write(tmp_path / "a.parquet", path=["cat\\0.png"]))) == 1


def test_a_table_without_rows_has_no_images_whatever_is_asked_for(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = write(tmp_path / "a.parquet", image=pa.array([], kind))
    (tmp_path / "l.csv").write_text("file,label\n0.png,0\n")
    with pytest.raises(BadInput, match="holds no images"):
        load(path)
    with pytest.raises(BadInput, match=r"no images of the data: 0\.png"):
        load(path, ReadOptions(labels=tmp_path / "l.csv"))


def test_columns_of_one_name_do_not_matter(tmp_path: Path) -> None:
    cells = pa.array([PICTURE])
    table = pa.Table.from_arrays([cells, cells], names=["image", "image"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(load(tmp_path / "a.parquet", ReadOptions(cache=tmp_path / "cache"))) == 1
