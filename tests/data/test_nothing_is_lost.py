"""Random data sets of all sources with random odd files: nothing is lost and labels stay."""

import contextlib
import io
import shlex
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from multistage_diffusion.cli import main
from multistage_diffusion.data import Images, ReadOptions, load
from tests.cli.conftest import SHORT
from tests.data.archives import write_tar

LETTERS = string.ascii_lowercase + string.digits + "\xe9 .-"
NAMES = st.text(LETTERS, min_size=1, max_size=5).filter(lambda name: name.strip(" .") == name)
SUFFIXES = st.sampled_from((".png", ".PNG", "", ".bmp", ".gif", ".dat", ".tif"))
ODD = {
    "notes.txt": b"no image",
    ".hidden.png": b"",
    "@eaDir/thumb.png": b"",
    "__MACOSX/._a.png": b"",
    "Thumbs.db": b"\xd0\xcf",
    "table.csv": b"a,b\n",
}
BROKEN = {"cut.png": b"\x89PNG\r\n\x1a\n", "empty.jpg": b""}


@dataclass(frozen=True)
class Put:
    """What is put into a data set."""

    labels: dict[str, str]
    """The class of each image by its path, which is that of its folder."""
    odd: dict[str, bytes]
    """Other files by their paths."""


@st.composite
def sets(draw: st.DrawFn) -> Put:
    """Two to four classes of one to three images each, and odd files anywhere."""
    classes = draw(st.lists(NAMES, min_size=2, max_size=4, unique_by=str.casefold))
    labels = {}
    for kind in classes:
        for stem in draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=str.casefold)):
            labels[f"{kind}/{stem}{draw(SUFFIXES)}"] = kind
    places = st.sampled_from(["", *(f"{kind}/" for kind in classes)])
    inside_classes = st.sampled_from([f"{kind}/" for kind in classes])
    odd = draw(st.lists(st.sampled_from(sorted(ODD)), max_size=4, unique=True))
    broken = draw(st.lists(st.sampled_from(sorted(BROKEN)), max_size=2, unique=True))
    files = {f"{draw(places)}{name}": ODD[name] for name in odd}
    files |= {f"{draw(inside_classes)}{name}": BROKEN[name] for name in broken}
    return Put(labels, files)


def content(number: int, name: str) -> bytes:
    """An image file that shows its number."""
    stream = io.BytesIO()
    kind = {".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF"}.get(Path(name).suffix, "PNG")
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(stream, kind)
    return stream.getvalue()


def as_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, inside in files.items():
        path = root / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(inside)
    return root / "set"


def as_zip(root: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(root / "set.zip", "w") as archive:
        for name, inside in files.items():
            archive.writestr(name, inside)
    return root / "set.zip"


def as_tar(root: Path, files: dict[str, bytes]) -> Path:
    return write_tar(root / "set.tar", files)


FORMS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": as_folder,
    "zip": as_zip,
    "tar": as_tar,
}


def read_back(images: Images) -> dict[int, str]:
    """The class of each image, by the number that it shows."""
    assert images.labels is not None
    shown = images.pixels[:][:, 0, 0, 0].tolist()
    assert len(set(shown)) == len(shown)
    classes = [images.classes[label] for label in images.labels.tolist()]
    return dict(zip(shown, classes, strict=True))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(sets(), st.sampled_from(sorted(FORMS)))
def test_files_are_used_or_named_and_labels_are_those_put_in(put: Put, form: str) -> None:
    images_in = {name: content(n, name) for n, name in enumerate(put.labels)}
    with TemporaryDirectory() as folder:
        path = FORMS[form](Path(folder), {**images_in, **put.odd})
        images = load(path, ReadOptions(skip_broken=True))
        used = read_back(images)
    assert used == dict(enumerate(put.labels.values()))
    named = [name for entry in images.left_out for name in entry.names]
    assert len(named) == len(set(named))
    broken = [line.split(": ")[0].removeprefix(f"{path}/") for line in images.skipped]
    assert set(named) | set(broken) == set(put.odd)
    assert len(images) + len(named) + len(broken) == len(images_in) + len(put.odd)
    for entry in images.left_out:
        assert any(f"{len(entry.names)} file" in note for note in images.notes)


ARRAYS = st.lists(st.integers(0, 2**40), min_size=2, max_size=8)


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(ARRAYS, st.sampled_from(("npz", "shards", "parquet")))
def test_tables_shards_and_arrays_give_the_labels_put_in(numbers: list[int], form: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"set.{form.replace('shards', 'tar')}"
        if form == "npz":
            grey = np.arange(len(numbers), dtype=np.uint8)
            pixels = np.broadcast_to(grey[:, None, None], (len(numbers), 4, 4))
            np.savez(path, images=pixels, labels=numbers)
        elif form == "shards":
            files: dict[str, bytes] = {}
            for n, label in enumerate(numbers):
                files |= {f"a.{n}.png": content(n, "a.png"), f"a.{n}.cls": b"%d" % label}
            as_tar(Path(folder), {**files, "z.cls": b"1"})
        else:
            cells = [{"bytes": content(n, "a.png"), "path": None} for n in range(len(numbers))]
            pq.write_table(pa.table({"image": cells, "label": numbers}), path)
        options = ReadOptions(label_column="label" if form == "parquet" else None)
        images = load(path, options)
    assert read_back(images) == dict(enumerate(map(str, numbers)))
    assert images.class_numbers == tuple(sorted(set(numbers)))
    unused = [name for entry in images.left_out for name in entry.names]
    assert unused == (["z.cls"] if form == "shards" else [])


SMALLEST = (
    *("--encoder-widths", "4", "--decoder-widths", "4", "4", "4"),
    *("--channel-mult", "1", "--blocks", "1"),
)


def printed_by(*words: str) -> list[str]:
    """The lines that a command prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    assert code == 0, words
    return output.getvalue().splitlines()


SHORTER = {
    "cluster": ("--pairs", "16", "--levels", "9"),
    "train": (*SMALLEST, *SHORT, "--images", "8"),
}
"""What makes the commands that are proposed quick. The last of equal options counts."""


# not shrunk: each attempt would train a network
@settings(max_examples=3, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(sets(), st.sampled_from(("set", "my set", "caf\xe9's")), st.sampled_from(sorted(FORMS)))
def test_proposed_commands_succeed_as_they_are_printed(put: Put, name: str, form: str) -> None:
    images = {path: content(17 * n, path) for n, path in enumerate(put.labels)}
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        written = FORMS[form](Path(), {**images, **put.odd})
        data = written.rename(f"{name}{written.suffix}")
        lines = printed_by("data", "inspect", str(data), "--skip-broken")
        for line in lines[lines.index("next:") + 1 :]:
            program, command, *words = shlex.split(line)
            assert program == "multistage"
            printed_by(command, *words, *SHORTER[command])
        assert len(list(Path("runs").glob("*/model.safetensors"))) == 1


def test_files_of_a_lock_are_no_files_of_the_data_set(tmp_path: Path) -> None:
    """A lock appears only while a command runs, so it must not be reported as left out."""
    (tmp_path / "a.png").write_bytes(content(0, "a.png"))
    (tmp_path / ".evaluate.lock").touch()
    (tmp_path / ".hidden.png").touch()
    (left_out,) = load(tmp_path).left_out
    assert left_out.names == (".hidden.png",)
