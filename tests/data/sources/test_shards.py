import io
import json
import tarfile
from pathlib import Path

import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.sources.location import expand_braces as expand
from multistage_diffusion.errors import BadInput


def write(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """The folder's images in three shards of four, each with class and description."""
    (tmp_path / "shards").mkdir()
    names = sorted(file.relative_to(folder) for file in folder.rglob("*.png"))
    for shard in range(3):
        files: dict[str, bytes] = {}
        for number, name in enumerate(names[4 * shard : 4 * shard + 4]):
            label, key = ("cat", "dog").index(name.parts[0]), f"{4 * shard + number:06d}"
            about = {"label": 1 - label, "kind": name.parts[0], "weight": 0.5}
            files |= {f"{key}.cls": str(label).encode(), f"{key}.png": (folder / name).read_bytes()}
            files |= {f"{key}.json": json.dumps(about).encode(), f"{key}.txt": b"an animal"}
        write(tmp_path / "shards" / f"{shard:03d}.tar", files)
    return tmp_path / "shards"


@pytest.mark.parametrize("pattern", ["{000..002}.tar", "*.tar", "{000,001,002}.tar", "00[0-2].tar"])
def test_shards_are_the_folder_they_were_made_of(folder: Path, shards: Path, pattern: str) -> None:
    assert load(f"{shards}/{pattern}").fingerprint == load(folder).fingerprint


def test_a_relative_pattern(folder: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_without_classes_the_json_has_the_label_if_anything(folder: Path, tmp_path: Path) -> None:
    png = next(folder.rglob("*.png")).read_bytes()
    write(
        tmp_path / "json.tar",
        {"a.png": png, "a.json": b'{"label": 3}', "b.json": b'{"label": 1}', "b.png": png},
    )
    write(
        tmp_path / "none.tar",
        {"a.png": png, "a.json": b"{}", "b.png": png, "b.json": b'{"text": "b"}'},
    )
    images = load(tmp_path / "json.tar")
    assert images.labels is not None
    assert images.labels.tolist() == [3, 1]
    assert load(tmp_path / "none.tar").labels is None


def test_bad_shards_are_named(folder: Path, shards: Path, tmp_path: Path) -> None:
    png = next(folder.rglob("*.png")).read_bytes()
    write(tmp_path / "two.tar", {"a.png": png, "a.jpg": png, "a.cls": b"0"})
    write(tmp_path / "negative.tar", {"a.png": png, "a.cls": b"-1"})
    write(tmp_path / "some.tar", {"a.png": png, "a.cls": b"1", "b.png": png})
    write(tmp_path / "json.tar", {"a.png": png, "a.json": b"{"})
    says = {
        "two.tar": "several images",
        "negative.tar": "the label -1",
        "some.tar": "b.png has no label",
        "json.tar": "not valid JSON",
    }
    for name, message in says.items():
        with pytest.raises(BadInput, match=message):
            load(tmp_path / name)
    with pytest.raises(BadInput, match=r"no file .*003\.tar, of 5"):
        load(f"{shards}/{{000..004}}.tar")


def test_braces() -> None:
    assert expand("a{8..11}.tar") == ["a8.tar", "a9.tar", "a10.tar", "a11.tar"]
    assert expand("{x,y}/{00..01}") == ["x/00", "x/01", "y/00", "y/01"]
    assert expand("plain") == ["plain"]
