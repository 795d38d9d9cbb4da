import json
import stat
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.errors import BadInput
from tests.data.sources.conftest import png, tarred, zipped


def assert_same(one: Images, two: Images) -> None:
    assert one.fingerprint == two.fingerprint
    assert one.classes == two.classes


def test_a_folder_gives_pixels_and_labels_from_subfolders(folder: Path) -> None:
    images = load(folder)
    assert images.shape == (3, 8, 8)
    assert images.classes == ("cat", "dog")
    assert images.labels is not None
    files = sorted(folder.rglob("*.png"))
    for index, (file, label) in enumerate(zip(files, images.labels.tolist(), strict=True)):
        pixels = images.pixels[index].permute(1, 2, 0)
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(file)))
        assert images.classes[label] == file.parent.name


def test_a_flat_folder_has_no_labels_and_may_be_grey(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(np.full((4, 6), index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    images = load(tmp_path)
    assert images.shape == (1, 4, 6)
    assert images.labels is None
    assert images.pixels[:][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_archives_are_read_like_folders_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / "cat" / "._0.png").write_bytes(b"what macOS leaves")
    images = load(folder)
    assert images.classes == ("cat", "dog")
    assert_same(load(zipped(folder, tmp_path / "set.zip")), images)
    assert_same(load(zipped(folder, tmp_path / "within.zip", "images/")), images)
    assert [len(entry.names) for entry in images.left_out] == [1, 1]
    assert load(tmp_path / "set.zip").notes == images.notes
    modes = {"set.tar": "w", "set.tar.gz": "w:gz", "set.tgz": "w:gz", "set.tar.xz": "w:xz"}
    for name, mode in modes.items():
        assert_same(load(tarred(folder, tmp_path / name, mode)), images)


def test_nothing_is_unpacked(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "set.zip")
    before = sorted(tmp_path.rglob("*"))
    load(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_labels_of_edm_and_stylegan_tools_replace_those_of_subfolders(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    labels = [[name, 5 - k % 6] for k, name in enumerate(names)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
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


def test_a_damaged_image_inside_an_archive_can_be_skipped(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with ZipFile(path, "w") as archive:  # stored, so that the checksum finds a changed byte
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


def test_labels_come_from_the_first_level_with_several_subfolders(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("data/train/a/1.png", "data/train/b/2.png", "data/train/b/more/3.png"):
            archive.writestr(name, png(np.zeros((2, 2), np.uint8)))
    assert load(tmp_path / "set.zip").classes == ("a", "b")


def test_links_in_a_zip_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "a.zip")
    link = ZipInfo("cat/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with ZipFile(path, "a") as archive:
        archive.writestr(link, "1.png")
    images = load(path)
    assert len(images) == 12
    assert [(entry.reason, entry.names) for entry in images.left_out] == [
        ("links inside the archive", ("cat/link.png",))
    ]


def test_an_encrypted_image_without_a_suffix_is_named(tmp_path: Path) -> None:
    info = ZipInfo("folder.d\\picture")
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"any")
    content = (tmp_path / "a.zip").read_bytes()
    begin = content.index(b"PK\x01\x02") + 8
    (tmp_path / "a.zip").write_bytes(content[:begin] + b"\x01\x00" + content[begin + 2 :])
    with pytest.raises(BadInput, match=r"a\.zip/folder\.d/picture is encrypted"):
        load(tmp_path / "a.zip")


def test_a_path_that_leads_out_of_an_archive_is_not_hidden(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        for kind in ("cat", "dog"):
            archive.writestr(f"../{kind}/0.png", png(np.zeros((4, 4), np.uint8)))
    assert load(tmp_path / "a.zip").classes == ("cat", "dog")
