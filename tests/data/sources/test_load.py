from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.sources import load as loading
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.errors import BadInput


def write_bad_files(folder: Path) -> None:
    """Files that no source can read."""
    (folder / "notes.txt").write_text("no images")
    (folder / "bad.npz").write_bytes(b"PK no zip")
    (folder / "bad.parquet").write_bytes(b"PAR1")
    (folder / "bad.zip").write_bytes(b"PK no zip")
    (folder / "bad.tar").write_bytes(b"no tar")
    (folder / "bad.arrow").write_bytes(b"no arrow")
    (folder / "bad.npy").write_bytes(b"no array")


def write_bad_arrays(folder: Path) -> None:
    """Files whose arrays are not images."""
    zeros = np.zeros((2, 4, 4), dtype=np.uint8)
    np.savez(folder / "complex.npz", images=np.zeros((2, 4, 4), np.complex64))
    np.save(folder / "five.npy", np.zeros((2, 4, 4, 5, 5), dtype=np.uint8))
    np.save(folder / "order.npy", np.asfortranarray(zeros))
    np.save(folder / "short.npy", np.zeros((9, 4, 4), dtype=np.uint8))
    (folder / "short.npy").write_bytes((folder / "short.npy").read_bytes()[:-1])
    np.savez(folder / "labels.npz", images=zeros, labels=np.zeros(3, dtype=int))
    np.savez(folder / "none.npz", images=np.zeros((0, 4, 4), dtype=np.uint8))


def test_bad_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_bad_files(tmp_path)
    write_bad_arrays(tmp_path)
    with ZipFile(tmp_path / "texts.zip", "w") as archive:
        archive.writestr("a.txt", "no image")
    messages = {
        "nowhere": "no folder or file",
        "empty": "holds no images",
        "notes.txt": "not a data set",
        "bad.npz": "Cannot read",
        "bad.parquet": "Cannot read",
        "complex.npz": "uint8",
        "five.npy": "uint8",
        "order.npy": "Fortran order",
        "short.npy": "ends before the last of its 9 images",
        "bad.npy": "Cannot read",
        "labels.npz": "2 integers",
        "none.npz": "holds no images",
        "bad.zip": "Cannot read",
        "bad.tar": "Cannot read",
        "texts.zip": "holds no images",
        "bad.arrow": "Cannot read",
        "{0..2}.tar": "no file .*0.tar, of 3",
        "*.txt": "may stand for .tar files or for .parquet files",
    }
    for name, message in messages.items():
        with pytest.raises(BadInput, match=message) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)


def test_options_that_do_not_apply_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"a": 1}')
    with pytest.raises(BadInput, match="--labels names files, and digits has none"):
        load("digits", ReadOptions(labels=tmp_path / "l.json"))
    with pytest.raises(BadInput, match="--label-column is for tables"):
        load(folder, ReadOptions(label_column="kind"))
    with pytest.raises(BadInput, match=r"--split is for data sets in parts .* has no parts"):
        load(folder, ReadOptions(split="test"))


def test_a_source_is_added_by_putting_it_into_the_list(
    tmp_path: Path, digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = Source(
        read=lambda location, _: Images(digits.pixels[:5], source=location.name),
        suffixes=(".digits",),
        options=frozenset(),
    )
    monkeypatch.setattr(loading, "SOURCES", (*loading.SOURCES, added))
    (tmp_path / "set.digits").touch()
    (tmp_path / "notes.txt").touch()
    assert load(tmp_path / "set.digits", ReadOptions(size=(4,))).shape == (1, 4, 4)
    with pytest.raises(BadInput, match=r"--split .*set\.digits has no parts"):
        load(tmp_path / "set.digits", ReadOptions(split="test"))
    with pytest.raises(BadInput, match=r"\.arrow or \.digits file"):
        load(tmp_path / "notes.txt")
    with pytest.raises(BadInput, match=r"no folder or file missing\.digits"):
        load("missing.digits")


def test_what_lies_here_comes_before_a_reserved_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    images = load("digits")
    assert images.shape == (3, 8, 8)
    assert images.notes[0] == "this is the digits that lies here, not the data set of that name"
    assert load("./digits").notes == ()
