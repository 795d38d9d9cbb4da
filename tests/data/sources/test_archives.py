import io
import json
import tarfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.errors import BadInput


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.add(file, f"./{file.relative_to(folder).as_posix()}")
    return target


def assert_same(one: Images, two: Images) -> None:
    assert one.fingerprint == two.fingerprint
    assert one.classes == two.classes
    assert one.notes == two.notes


def test_archives_are_folders_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / "cat" / "._0.png").write_bytes(b"what macOS leaves")
    images = load(folder)
    assert images.classes == ("cat", "dog")
    assert_same(load(zipped(folder, tmp_path / "set.zip")), images)
    assert_same(load(zipped(folder, tmp_path / "within.zip", "images/")), images)
    for name, mode in (
        ("set.tar", "w"),
        ("set.tar.gz", "w:gz"),
        ("set.tgz", "w:gz"),
        ("set.tar.xz", "w:xz"),
    ):
        assert_same(load(tarred(folder, tmp_path / name, mode)), images)


def test_nothing_is_unpacked(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "set.zip")
    before = sorted(tmp_path.rglob("*"))
    load(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_labels_of_edm_and_stylegan_tools_come_before_their_subfolders(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    (folder / "dataset.json").write_text(
        json.dumps({"labels": [[name, 5 - k % 6] for k, name in enumerate(names)]})
    )
    make = {
        "folder": lambda: folder,
        "zip": lambda: zipped(folder, tmp_path / "a.zip"),
        "tar": lambda: tarred(folder, tmp_path / "a.tar", "w"),
    }
    images = load(make[kind]())
    assert images.labels is not None
    assert images.labels.tolist() == [5 - k % 6 for k in range(12)]
    assert images.classes == tuple("012345")
    assert "dataset.json" in images.notes[0]


def test_a_dataset_json_without_labels_means_that_there_are_none(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"labels": null}')
    assert load(folder).labels is None


def test_an_image_damaged_inside_an_archive_is_broken_and_no_more(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "set.zip"
    with ZipFile(path, "w") as archive:  # stored, so that a changed byte is found by the checksum
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"set\.zip/cat/1\.png.*--skip-broken"):
        load(path)
    assert len(load(path, ReadOptions(skip_broken=True))) == 11


def test_a_truncated_tar_is_named(folder: Path, tmp_path: Path) -> None:
    path = tarred(folder, tmp_path / "set.tar", "w")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"Cannot read .*set\.tar"):
        load(path)


def test_labels_come_from_the_first_level_that_tells_images_apart(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("data/train/a/1.png", "data/train/b/2.png", "data/train/b/more/3.png"):
            stream = io.BytesIO()
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(stream, "PNG")
            archive.writestr(name, stream.getvalue())
    assert load(tmp_path / "set.zip").classes == ("a", "b")
