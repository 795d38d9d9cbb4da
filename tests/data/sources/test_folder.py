"""Links, hidden files and files of labels in folders of images."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput
from tests.data.test_inputs import labels, left_out, put, values

SEEN = "links to what is read elsewhere in the data"


def test_files_that_are_links_into_a_hidden_folder_are_read(tmp_path: Path) -> None:
    root = put(tmp_path / "set", ".store/0", ".store/1")
    for number, kind in enumerate(("cat", "dog")):
        (root / kind).mkdir()
        (root / kind / "a.png").symlink_to(f"../.store/{number}")
    images = load(root)
    assert labels(images) == ["cat", "dog"]
    assert left_out(images) == {
        "hidden or made by other programs (thumbnails, caches)": (".store/0", ".store/1")
    }


def test_a_folder_that_is_a_link_to_a_hidden_one_is_read(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "cat/a.png", ".store/b.png")
    (root / "dog").symlink_to(".store")
    assert labels(load(root)) == ["cat", "dog"]


def test_links_between_hidden_folders_end(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "a.png", ".x/b.png", ".y/c.png")
    (root / ".x" / "y").symlink_to("../.y")
    (root / ".y" / "x").symlink_to("../.x")
    assert values(load(root)) == [0]


def test_no_image_is_read_through_two_links(tmp_path: Path) -> None:
    put(tmp_path / "store", "cat/0.png", "cat/1.png")
    root = tmp_path / "set"
    root.mkdir()
    (root / "all").symlink_to("../store")
    (root / "a").symlink_to("../store/cat")
    (root / "b.png").symlink_to("../store/cat/0.png")
    images = load(root)
    assert values(images) == [0, 1]
    assert left_out(images)[SEEN] == ("all/cat", "b.png")


def test_no_image_is_read_through_two_links_to_its_file(tmp_path: Path) -> None:
    put(tmp_path / "store", "0.png", "1.png")
    root = tmp_path / "set"
    root.mkdir()
    for name, number in (("a.png", 0), ("b.png", 1), ("c.png", 0)):
        (root / name).symlink_to(f"../store/{number}.png")
    images = load(root)
    assert values(images) == [0, 1]
    assert left_out(images)[SEEN] == ("c.png",)


def test_links_that_became_text_are_named(tmp_path: Path) -> None:
    put(tmp_path / "store", "cat/0.png")
    root = put(tmp_path / "set", "dog/0.png")
    (root / "cat").write_text("../store/cat")
    (root / "notes").write_text("no path")
    reasons = left_out(load(root))
    assert reasons.pop("no images") == ("notes",)
    assert list(reasons.values()) == [("cat",)]
    assert "links stored as text" in next(iter(reasons))


def test_a_folder_of_nothing_but_lost_links_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    with pytest.raises(BadInput, match=r"no images .*\(left out 1 file, links to nothing: a\.png"):
        load(tmp_path)


def test_a_class_folder_with_nothing_but_hidden_files_is_named(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "cat/a.png", "dog/b.png")
    (root / "fox").mkdir()
    (root / "fox" / ".DS_Store").touch()
    assert "folders without files: fox" in load(root).notes


@pytest.mark.parametrize(
    "name",
    ["@__thumb/a.png", "@eaDir@tmp/a.png", "RECYCLER/a.png", "Temporary Items/a.png", "~$a.png"],
)
def test_files_of_other_programs_are_left_out(name: str, tmp_path: Path) -> None:
    assert len(load(put(tmp_path / "set", "a.png", name))) == 1


def with_parts(root: Path) -> Path:
    """Images in two parts, of which only the first has labels."""
    put(root, "train/a.png", "train/b.png", "test/c.png")
    (root / "train" / "metadata.csv").write_text("file_name,label\na.png,cat\nb.png,dog\n")
    (root / "test" / "metadata.csv").write_text("file_name\nc.png\n")
    return root


def test_metadata_of_a_part_that_is_not_read_needs_no_labels(tmp_path: Path) -> None:
    root = with_parts(tmp_path / "set")
    assert labels(load(root)) == ["cat", "dog"]
    test = load(root, ReadOptions(split="test"))
    assert test.labels is None
    assert any("test/metadata.csv has no column label" in note for note in test.notes)


def test_metadata_may_be_a_parquet_file(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "a.png", "b.png")
    table = pa.table({"file_name": ["b.png", "a.png"], "label": ["dog", "cat"]})
    pq.write_table(table, root / "metadata.parquet")
    assert labels(load(root)) == ["cat", "dog"]
    pq.write_table(pa.table({"name": ["a.png"]}), root / "metadata.parquet")
    with pytest.raises(BadInput, match=r"metadata\.parquet needs a column file_name"):
        load(root)
    (root / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"^Cannot read .*metadata\.parquet"):
        load(root)


def test_lines_of_json_end_at_line_feeds_alone(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "a.png", "b.png")
    rows = [{"file_name": f"{name}.png", "label": name, "text": "\u2028\x85"} for name in "ab"]
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (root / "metadata.jsonl").write_text(lines, encoding="utf-8", newline="")
    assert labels(load(root)) == ["a", "b"]
