import json
from pathlib import Path

import pytest

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.label_files import read_labels
from multistage_diffusion.errors import BadInput


@pytest.fixture
def names(folder: Path) -> list[str]:
    """The paths of the images inside ``folder``, in order."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))


def test_every_form_of_a_file_of_labels_gives_those_of_subfolders(
    folder: Path, names: list[str], tmp_path: Path
) -> None:
    expected = load(folder)
    kinds = [name.split("/")[0] for name in names]
    numbers = [("cat", "dog").index(kind) for kind in kinds]
    named = dict(zip(names, kinds, strict=True))
    numbered = dict(zip(names, numbers, strict=True))
    rows_of_names = "".join(f"{name},{kind}\n" for name, kind in named.items())
    rows_of_numbers = "".join(f"{n},./{name}\r\n" for name, n in numbered.items())
    texts = {
        "names.json": json.dumps(named),
        "numbers.json": json.dumps(numbered),
        "edm.json": json.dumps({"labels": list(numbered.items())}),
        "names.csv": f"file,label\n{rows_of_names}",
        "numbers.csv": f"\ufefflabel,file\r\n{rows_of_numbers}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        images = load(folder, ReadOptions(labels=tmp_path / name))
        assert images.fingerprint == expected.fingerprint, name
        assert images.classes == (("0", "1") if "names" not in name else ("cat", "dog")), name


def test_a_file_of_labels_replaces_those_of_subfolders_and_only_its_classes_count(
    folder: Path, names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "l.json").write_text(json.dumps(dict.fromkeys(names, 7)))
    images = load(folder, ReadOptions(labels=tmp_path / "l.json"))
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 12
    assert images.classes == ("7",)
    assert images.class_numbers == (7,)


def test_bad_labels_are_named(folder: Path, names: list[str], tmp_path: Path) -> None:
    vectors = {name: [0.5, 0.5] for name in names}
    cases = {
        "some.json": (json.dumps({names[0]: 0}), f"no label for {names[1]}, nor for 10 others"),
        "negative.json": (json.dumps(dict.fromkeys(names, -1)), "the label -1"),
        "vector.json": (json.dumps(vectors), r"the label \[0.5, 0.5\]"),
        "list.json": ("[1, 2]", "needs labels as"),
        "no.json": ("{", "not valid JSON"),
        "none.json": ('{"labels": null}', "holds no labels"),
        "head.csv": ("name,class\na,b\n", "header file,label"),
        "short.csv": ("file,label\ncat/1.png\n", "holds no labels"),
    }
    for name, (text, message) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=message):
            load(folder, ReadOptions(labels=tmp_path / name))
    with pytest.raises(BadInput, match=r"Cannot read the labels in .*gone\.csv"):
        load(folder, ReadOptions(labels=tmp_path / "gone.csv"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"a.png": ' + "[" * 100_000, "nested too deeply"),
        ("a.json", '{"a.png": 9223372036854775808}', "labels are whole numbers from 0 to 2"),
        ("a.json", '{"a.png": 1' + "0" * 5000 + "}", "is not valid JSON"),
        ("a.csv", f"file,label\na.png,{2**64}\n", "labels are whole numbers from 0 to 2"),
        ("a.csv", f"file,label\na.png,{'x' * 200_000}\n", "not valid CSV: line 2: field larger"),
    ],
    ids=["nested", "nested value", "large", "digits", "large in a table", "field"],
)
def test_hostile_files_of_labels_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BadInput, match=message):
        read_labels(path)


def test_a_label_of_very_many_digits_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na.png," + "1" * 5000 + "\n")
    assert read_labels(path) == {"a.png": "1" * 5000}


@pytest.mark.parametrize(("name", "end"), [("l.txt", "\n"), ("l.csv", "\r"), ("l.csv", "\r\n")])
def test_a_table_may_be_called_txt_and_end_its_lines_in_any_way(
    name: str, end: str, tmp_path: Path
) -> None:
    content = end.join(["file,label", 'a.png,"x, y"', "b.png,z", ""])
    (tmp_path / name).write_bytes(content.encode())
    assert read_labels(tmp_path / name) == {"a.png": "x, y", "b.png": "z"}
