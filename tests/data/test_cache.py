import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.cli import main
from multistage_diffusion.data import Images, ReadOptions, cache, load
from multistage_diffusion.data.decoding import Pixels
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.training.batches.held_out import split
from tests.data.sources.conftest import tarred, zipped

SHARD = 5 * 3 * 8 * 8


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of five images of ``folder``."""
    monkeypatch.setattr(cache, "SHARD_BYTES", SHARD)


@pytest.fixture
def mixed(folder: Path) -> Path:
    """``folder`` with a broken image, grey ones among those in colour, and a transparent one."""
    (folder / "cat" / "0.png").write_bytes(b"no image")
    for name in ("cat/10.png", "cat/2.png", "dog/90.png", "dog/91.png"):
        Image.fromarray(np.full((8, 8), len(name), np.uint8)).save(folder / name)
    Image.fromarray(np.full((8, 8, 4), 90, np.uint8)).save(folder / "dog" / "5.png")
    return folder


def assert_same(one: Images, two: Images) -> None:
    assert torch.equal(one.pixels[:], two.pixels[:])
    assert one.pixels.shape == two.pixels.shape
    assert one.labels is not None
    assert two.labels is not None
    assert torch.equal(one.labels, two.labels)
    for name in ("classes", "notes", "skipped", "source", "fingerprint"):
        assert getattr(one, name) == getattr(two, name), name
    assert one.standard_deviation == two.standard_deviation


def never(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
    """A progress callback that allows no decoding."""
    for _ in images:
        raise AssertionError("an image was decoded")
    yield from ()


def read_some(folder: Path | str, options: ReadOptions, count: int) -> None:
    """A build that ends after ``count`` images, like one that is killed."""

    def some(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
        yield from islice(images, count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(folder, options, some)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_cached_set_is_the_decoded_one_bit_for_bit(
    mixed: Path, tmp_path: Path, kind: str
) -> None:
    make = {
        "folder": lambda: mixed,
        "zip": lambda: zipped(mixed, tmp_path / "a.zip"),
        "tar": lambda: tarred(mixed, tmp_path / "a.tar", "w"),
    }
    source = make[kind]()
    options = ReadOptions(skip_broken=True)
    kept = replace(options, cache=tmp_path / "cache")
    fresh = load(source, options)
    built = load(source, kept)
    again = load(source, kept, never)
    assert len(fresh.notes) == 2
    assert len(fresh.skipped) == 1
    for images in (built, again):
        assert_same(images, fresh)
        assert Images(images.pixels, images.labels).fingerprint == fresh.fingerprint
    chosen = torch.tensor([14, 0, 3, 3, 11])
    assert torch.equal(again.pixels[chosen], fresh.pixels[chosen])
    assert torch.equal(again.pixels[3:13:4], fresh.pixels[3:13:4])
    assert torch.equal(again.pixels[-2], fresh.pixels[-2])
    assert torch.equal(again.pixels[again.labels == 1], fresh.pixels[fresh.labels == 1])


@pytest.mark.parametrize("count", [0, 4, 5, 7, 11, 16])
def test_an_interrupted_build_continues(mixed: Path, tmp_path: Path, count: int) -> None:
    kept = ReadOptions(skip_broken=True, cache=tmp_path / "cache")
    decoded = 0

    def counted(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
        nonlocal decoded
        for pixels in images:
            decoded += 1  # after the last whole shard
            yield pixels

    read_some(mixed, kept, count)
    (half,) = (tmp_path / "cache").iterdir()
    (half / ".00009.npy.half").write_bytes(b"what a kill leaves")
    assert_same(load(mixed, kept, counted), load(mixed, ReadOptions(skip_broken=True)))
    shards = [np.load(path) for path in sorted(half.glob("*.npy"))]
    assert sum(map(len, shards)) == 17
    assert decoded < 17 or count < 5
    assert not list(half.glob(".*"))


def test_a_change_of_the_images_gives_another_cache(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    load(folder, ReadOptions(cache=root))
    for options in (
        ReadOptions(size=(8, 6)),
        ReadOptions(size=(8, 6), fit="pad"),
        ReadOptions(size=(6,)),
    ):
        kept = load(folder, replace(options, cache=root))
        assert_same(kept, load(folder, options))
    assert len(list(root.iterdir())) == 4
    os.utime(folder / "cat" / "1.png", ns=(1, 1))
    load(folder, ReadOptions(cache=root))
    assert len(list(root.iterdir())) == 5
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "cat" / "1.png")
    assert_same(load(folder, ReadOptions(cache=root)), load(folder))
    (folder / "cat" / "1.png").unlink()
    assert len(load(folder, ReadOptions(cache=root))) == 11


def test_other_labels_need_no_decoding(folder: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    file = tmp_path / "labels.csv"
    kept = ReadOptions(cache=tmp_path / "cache")
    load(folder, kept)
    for labels in (range(12), [3] * 12):
        rows = [f"{name},{label}\n" for name, label in zip(names, labels, strict=True)]
        file.write_text("".join(["file,label\n", *rows]))
        relabelled = load(folder, replace(kept, labels=file), never)
        assert_same(relabelled, load(folder, ReadOptions(labels=file)))
    assert_same(load(folder, kept, never), load(folder))


def test_broken_images_are_refused_or_left_out_from_the_cache_too(
    mixed: Path, tmp_path: Path
) -> None:
    kept = ReadOptions(cache=tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(BadInput, match=r"Cannot decode .*0\.png.*--skip-broken"):
            load(mixed, kept)
    skipping = replace(kept, skip_broken=True)
    assert_same(load(mixed, skipping, never), load(mixed, ReadOptions(skip_broken=True)))
    with pytest.raises(BadInput, match=r"Cannot decode .*0\.png.*--skip-broken"):
        load(mixed, kept)


def test_a_damaged_shard_is_refused_and_a_copied_one_is_not(folder: Path, tmp_path: Path) -> None:
    kept = ReadOptions(cache=tmp_path / "cache")
    expected = load(folder, kept).fingerprint
    shard = next((tmp_path / "cache").glob("*/00001.npy"))
    content = shard.read_bytes()
    message = r"00001\.npy is missing or not as it was written; remove .*cache.* to decode"
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        shard.write_bytes(damaged)
        with pytest.raises(BadInput, match=message):
            load(folder, kept)
    shard.unlink()
    with pytest.raises(BadInput, match="missing"):
        load(folder, kept)
    shard.write_bytes(content)
    assert load(folder, kept, never).fingerprint == expected


def test_a_source_that_changes_while_it_is_decoded_is_refused(folder: Path, tmp_path: Path) -> None:
    def touched(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
        os.utime(folder / "cat" / "1.png", ns=(1, 1))
        return images

    with pytest.raises(BadInput, match="changed while it was decoded"):
        load(folder, ReadOptions(cache=tmp_path / "cache"), touched)


def test_large_sets_are_kept_in_the_cache_of_the_user_and_small_ones_in_memory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert isinstance(load(folder).pixels, torch.Tensor)
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(cache, "IN_MEMORY", 12 * 3 * 8 * 8 - 1)
    kept = load(folder)
    (made,) = (tmp_path / "home" / "multistage-diffusion").iterdir()
    assert made.name.startswith("images-")
    monkeypatch.setattr(cache, "IN_MEMORY", 12 * 3 * 8 * 8)
    assert_same(kept, load(folder, ReadOptions(cache=tmp_path / "other")))


def test_one_process_builds_and_others_wait(folder: Path, tmp_path: Path) -> None:
    kept = ReadOptions(cache=tmp_path / "cache")
    builds = list[int]()
    loaded = list[Images]()

    def slow(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
        builds.append(before)
        for pixels in images:
            time.sleep(0.01)
            yield pixels

    def work() -> None:
        loaded.append(load(folder, kept, slow))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == [0]
    for images in loaded:
        assert_same(images, load(folder))


def test_a_full_disk_is_one_line_and_keeps_what_is_whole(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, *content: bytes) -> None:
        if path.name == "00001.npy":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, *content)

    kept = tmp_path / "cache"
    arguments = ["--data", str(folder), "--cache", str(kept), "--out", str(tmp_path / "s.json")]
    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_atomically", full)
        assert main(["cluster", *arguments]) == 2
    assert re.fullmatch(
        r"multistage: Cannot write or read .*00001\.npy: No space left on device\.\n",
        capsys.readouterr().err,
    )
    assert_same(load(folder, ReadOptions(cache=kept), from_second), load(folder))


def from_second(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
    assert before == 5
    return images


@pytest.mark.slow
def test_a_killed_build_continues(folder: Path, tmp_path: Path) -> None:
    """SIGKILL at random times."""
    rng = np.random.default_rng(0)
    kept = tmp_path / "cache"
    for index in range(2000):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "dog" / f"more{index}.png")
    program = (
        "import sys; from pathlib import Path;"
        "from multistage_diffusion.data import ReadOptions, cache, load;"
        f"cache.SHARD_BYTES = {SHARD}; print('go', flush=True);"
        "load(sys.argv[1], ReadOptions(cache=Path(sys.argv[2])))"
    )
    kills = 0
    for _ in range(8):
        command = [sys.executable, "-c", program, str(folder), str(kept)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.05, 1.0))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    assert_same(load(folder, ReadOptions(cache=kept)), load(folder))


def test_cached_images_are_held_out_like_those_in_memory(folder: Path, tmp_path: Path) -> None:
    kept = load(folder, ReadOptions(cache=tmp_path / "cache"))
    fresh = load(folder)
    for one, two in zip(split(kept, 0.25, 3), split(fresh, 0.25, 3), strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one.pixels[:], two.pixels[:])
        assert not isinstance(one.pixels, torch.Tensor)


def test_the_files_are_shards_and_an_index(folder: Path, tmp_path: Path) -> None:
    load(folder, ReadOptions(cache=tmp_path / "cache"))
    (kept,) = (tmp_path / "cache").iterdir()
    shapes = [np.load(path).shape for path in sorted(kept.glob("*.npy"))]
    assert shapes == [(5, 3, 8, 8), (5, 3, 8, 8), (2, 3, 8, 8)]
    (index,) = kept.glob("index-*.json")
    assert json.loads(index.read_text())["fingerprint"] == load(folder).fingerprint


def test_cached_webdataset_shards_are_the_decoded_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = str(tmp_path / "{0..1}.tar")
    for shard in range(2):
        part = tmp_path / f"part{shard}"
        part.mkdir()
        for index in range(7):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(part / f"{index}.png")
            image.save(part / f"{index}.mask.png")
            (part / f"{index}.cls").write_text(str(index % 3))
        tarred(part, tmp_path / f"{shard}.tar", "w")
    kept = ReadOptions(cache=tmp_path / "cache")
    read_some(source, kept, 6)
    assert_same(load(source, kept), load(source))
    assert list_images(source).count() == 14  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["parquet", "saved", "arrow"])
def test_a_table_is_identified_by_its_files_and_by_those_it_points_to(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    import datasets

    files = [str(file) for file in sorted(folder.rglob("*.png"))]
    cells = {
        "image": [{"path": file, "bytes": None} for file in files],
        "label": [int("dog" in file) for file in files],
    }
    fields = {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}
    features = datasets.Features(
        image=fields if kind == "parquet" else datasets.Image(),
        label=datasets.ClassLabel(names=["cat", "dog"]),
    )
    table = datasets.Dataset.from_dict(cells, features)
    target = tmp_path / f"set.{kind}"
    if kind == "parquet":
        table.to_parquet(target)
    else:
        table.save_to_disk(tmp_path / "set.saved")
    source = next((tmp_path / "set.saved").glob("*.arrow")) if kind == "arrow" else target
    kept = ReadOptions(cache=tmp_path / "cache")
    assert_same(load(source, kept), load(source))
    assert_same(load(source, kept, never), load(source))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(files[3])
    assert_same(load(source, kept), load(source))
