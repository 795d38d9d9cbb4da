import json
from pathlib import Path

import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput


@pytest.fixture
def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))


def test_files_of_labels_say_what_subfolders_say(
    folder: Path, names: list[str], tmp_path: Path
) -> None:
    expected = load(folder)
    kinds = [name.split("/")[0] for name in names]
    numbers = [("cat", "dog").index(kind) for kind in kinds]
    texts = {
        "names.json": json.dumps(dict(zip(names, kinds, strict=True))),
        "numbers.json": json.dumps(dict(zip(names, numbers, strict=True))),
        "edm.json": json.dumps({"labels": list(zip(names, numbers, strict=True))}),
        "names.csv": "file,label\n"
        + "".join(f"{name},{kind}\n" for name, kind in zip(names, kinds, strict=True)),
        "numbers.csv": "\ufefflabel,file\r\n"
        + "".join(f"{n},./{name}\r\n" for name, n in zip(names, numbers, strict=True)),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        images = load(folder, ReadOptions(labels=tmp_path / name))
        assert images.fingerprint == expected.fingerprint, name
        assert images.classes == (("0", "1") if "names" not in name else ("cat", "dog")), name


def test_a_file_of_labels_comes_before_subfolders_and_may_name_more(
    folder: Path, names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "l.json").write_text(json.dumps({**dict.fromkeys(names, 7), "another.png": 0}))
    images = load(folder, ReadOptions(labels=tmp_path / "l.json"))
    assert images.labels is not None
    assert images.labels.tolist() == [7] * 12
    assert len(images.classes) == 8


def test_bad_labels_are_named(folder: Path, names: list[str], tmp_path: Path) -> None:
    says = {
        "some.json": (json.dumps({names[0]: 0}), f"no label for {names[1]}, nor for 10 others"),
        "negative.json": (json.dumps(dict.fromkeys(names, -1)), "the label -1"),
        "vector.json": (
            json.dumps({name: [0.5, 0.5] for name in names}),
            r"the label \[0.5, 0.5\]",
        ),
        "list.json": ("[1, 2]", "needs labels as"),
        "no.json": ("{", "not valid JSON"),
        "none.json": ('{"labels": null}', "holds no labels"),
        "head.csv": ("name,class\na,b\n", "header file,label"),
        "short.csv": ("file,label\ncat/1.png\n", "the label None for cat/1.png"),
    }
    for name, (text, message) in says.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=message):
            load(folder, ReadOptions(labels=tmp_path / name))
    with pytest.raises(BadInput, match=r"Cannot read the labels in .*gone\.csv"):
        load(folder, ReadOptions(labels=tmp_path / "gone.csv"))


def test_options_that_do_not_apply_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"a": 1}')
    with pytest.raises(BadInput, match="--labels names files, and digits has none"):
        load("digits", ReadOptions(labels=tmp_path / "l.json"))
    with pytest.raises(BadInput, match="--label-column is for tables"):
        load(folder, ReadOptions(label_column="kind"))
    with pytest.raises(BadInput, match="--split is for Hugging Face data sets"):
        load(folder, ReadOptions(split="test"))
