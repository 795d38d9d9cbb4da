import json
from pathlib import Path

import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput
from tests.data.archives import write_tar


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """The images of ``folder`` in three shards of four, each with class and description."""
    (tmp_path / "shards").mkdir()
    names = sorted(file.relative_to(folder) for file in folder.rglob("*.png"))
    for shard in range(3):
        files: dict[str, bytes] = {}
        for number in range(4 * shard, 4 * shard + 4):
            kind = names[number].parts[0]
            label = ("cat", "dog").index(kind)
            about = {"label": 1 - label, "kind": kind, "weight": 0.5}
            files[f"{number:06d}.cls"] = str(label).encode()
            files[f"{number:06d}.png"] = (folder / names[number]).read_bytes()
            files[f"{number:06d}.json"] = json.dumps(about).encode()
            files[f"{number:06d}.txt"] = b"an animal"
        write_tar(tmp_path / "shards" / f"{shard:03d}.tar", files)
    return tmp_path / "shards"


@pytest.mark.parametrize("pattern", ["{000..002}.tar", "*.tar", "{000,001,002}.tar", "00[0-2].tar"])
def test_shards_are_read_like_the_folder_they_come_from(
    folder: Path, shards: Path, pattern: str
) -> None:
    assert load(f"{shards}/{pattern}").fingerprint == load(folder).fingerprint


def test_a_pattern_may_be_relative(
    folder: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shards.parent)
    assert load("shards/*.tar").fingerprint == load(folder).fingerprint


def test_a_single_tar_with_classes_is_a_shard(shards: Path) -> None:
    images = load(shards / "001.tar")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.classes == ("0", "1")


def test_the_label_may_come_from_a_key_of_the_json(folder: Path, shards: Path) -> None:
    images = load(f"{shards}/*.tar", ReadOptions(label_column="kind"))
    assert images.classes == ("cat", "dog")
    assert images.fingerprint == load(folder).fingerprint
    with pytest.raises(
        BadInput,
        match=r"000\.tar/000000\.json has no whole number or name under 'weight'; .*'kind'",
    ):
        load(f"{shards}/*.tar", ReadOptions(label_column="weight"))


def test_without_a_class_the_label_comes_from_the_json_if_it_has_one(
    folder: Path, tmp_path: Path
) -> None:
    png = next(folder.rglob("*.png")).read_bytes()
    write_tar(
        tmp_path / "json.tar",
        {"a.png": png, "a.json": b'{"label": 3}', "b.json": b'{"label": 1}', "b.png": png},
    )
    write_tar(
        tmp_path / "none.tar",
        {"a.png": png, "a.json": b"{}", "b.png": png, "b.json": b'{"text": "b"}'},
    )
    images = load(tmp_path / "json.tar")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0]
    assert images.classes == ("1", "3")
    assert load(tmp_path / "none.tar").labels is None


def test_bad_shards_are_named(folder: Path, shards: Path, tmp_path: Path) -> None:
    png = next(folder.rglob("*.png")).read_bytes()
    write_tar(tmp_path / "two.tar", {"a.png": png, "a.jpg": png, "a.cls": b"0"})
    write_tar(tmp_path / "negative.tar", {"a.png": png, "a.cls": b"-1"})
    write_tar(tmp_path / "some.tar", {"a.png": png, "a.cls": b"1", "b.png": png})
    write_tar(tmp_path / "json.tar", {"a.png": png, "a.json": b"{"})
    messages = {
        "two.tar": "several images",
        "negative.tar": "the label -1",
        "some.tar": "b.png has no label",
        "json.tar": "not valid JSON",
    }
    for name, message in messages.items():
        with pytest.raises(BadInput, match=message):
            load(tmp_path / name)
    with pytest.raises(BadInput, match=r"no file .*003\.tar, of 5"):
        load(f"{shards}/{{000..004}}.tar")
