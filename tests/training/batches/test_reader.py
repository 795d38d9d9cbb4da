import gc
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.data.augment import mirror
from multistage_diffusion.data.mapped import MappedFile, MappedRows
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run
from multistage_diffusion.space import to_unit_range
from multistage_diffusion.training import train
from multistage_diffusion.training.batches import reader
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.reader import BatchReader
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.resume import check_run
from tests.conftest import run_on
from tests.training.test_loop import assert_same_weights, stop_after

PARTS = [torch.tensor([0, 1, 6]), torch.tensor([2, 3, 4, 5, 7])]
CPU = torch.device("cpu")


def feed(config: RunConfig, images: Images, ahead: int) -> BatchReader:
    return BatchReader(config, images, Levels.of(config), lambda _: PARTS, CPU, ahead)


def mapped(images: Images, folder: Path) -> Images:
    np.save(folder / "set.npy", images.pixels[:].numpy())
    return replace(images, pixels=MappedRows([MappedFile(folder / "set.npy", channels_first=True)]))


def threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith("batch-reader")
    ]


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("on_disk", [False, True])
def test_reading_ahead_changes_no_number(
    few_digits: Images, tmp_path: Path, ahead: int, on_disk: bool
) -> None:
    config = run_on(few_digits, images=80)
    config = replace(config, model=replace(config.model, classes=10))
    plain = feed(config, few_digits, 0)
    reading = feed(config, mapped(few_digits, tmp_path) if on_disk else few_digits, ahead)
    for seen in (0, 8, 16, 24, 64, 72, 80, 88, 8):  # on, over a gap, past the end and back
        (drawn, samples), (expected, plainly) = reading(seen), plain(seen)
        for name in ("chosen", "sigma", "mirrored"):
            assert torch.equal(getattr(drawn, name), getattr(expected, name))
        for one, two in zip(samples, plainly, strict=True):
            assert torch.equal(one.rows, two.rows)
            assert torch.equal(one.pixels, two.pixels)
            assert torch.equal(one.noise, two.noise)
            assert one.labels is not None
            assert two.labels is not None
            assert torch.equal(one.labels, two.labels)


def test_only_so_many_batches_are_read_ahead(few_digits: Images) -> None:
    reading = feed(run_on(few_digits, images=800), few_digits, 2)
    for seen in (0, 8, 400):
        reading(seen)
        assert set(reading.pending) == {seen + 8, seen + 16}


def test_a_run_has_the_same_weights_whether_it_reads_ahead_or_not(
    few_digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one session or several, from memory or from a file."""
    config = run_on(few_digits, images=24, accumulate=2)
    for name, ahead in (("none", 0), ("two", 2)):
        monkeypatch.setattr(reader, "MOST_AHEAD", ahead)
        list(train(config, mapped(few_digits, tmp_path), tmp_path / name))
    list(train(config, few_digits, tmp_path / "memory"))
    for _ in range(3):
        stop = stop_after(1)
        list(
            train(
                config,
                mapped(few_digits, tmp_path),
                tmp_path / "sessions",
                lambda stop=stop: next(stop),  # type: ignore[misc]
            )
        )
    assert_same_weights(tmp_path / "none", tmp_path / "two")
    assert_same_weights(tmp_path / "none", tmp_path / "sessions")
    assert_same_weights(tmp_path / "none", tmp_path / "memory")


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_wanted(
    few_digits: Images, tmp_path: Path
) -> None:
    reading = feed(run_on(few_digits, images=80), mapped(few_digits, tmp_path), 2)
    reading(0)
    for seen in (8, 16):
        reading.pending[seen].result()
    (tmp_path / "set.npy").unlink()
    reading(8)
    reading(16)
    with pytest.raises(FileNotFoundError) as caught:
        reading(24)
    assert any(entry.name == "window" for entry in caught.traceback)


def test_threads_end_with_the_run(few_digits: Images, tmp_path: Path) -> None:
    running = train(run_on(few_digits, images=80), mapped(few_digits, tmp_path), tmp_path / "run")
    next(running)
    assert threads()
    running.close()
    del running
    gc.collect()
    for _ in range(100):
        if not threads():
            break
        time.sleep(0.01)
    assert not threads()


def test_other_images_are_refused_with_the_option_that_made_them(
    few_digits: Images, tmp_path: Path
) -> None:
    def read_by(images: Images, **reading: object) -> RunConfig:
        config = run_on(images)
        return replace(
            config, data=replace(config.data, reading={"fit": "pad", "split": None, **reading})
        )

    other = Images(few_digits.pixels[:].flip(0), few_digits.labels, few_digits.classes)
    list(train(read_by(few_digits, size=[8]), few_digits, tmp_path))
    check_run(Run(tmp_path), read_by(few_digits, size=[8, 8]), few_digits)
    with pytest.raises(
        BadInput, match=r"on other images, those of digits \(--size 8 there, 9 7 here\); choose"
    ):
        check_run(Run(tmp_path), read_by(other, size=[9, 7]), other)
    with pytest.raises(BadInput, match="on other images, those of digits; choose"):
        check_run(Run(tmp_path), run_on(other), other)


def test_the_nearest_of_several_noises_is_taken(few_digits: Images) -> None:
    """It is among the candidates, no farther than the first, and the same in any range."""
    config = run_on(few_digits, noise_candidates=4)
    plain, chosen = (feed(c, few_digits, 0)(8) for c in (run_on(few_digits), config))
    drawn, samples = chosen
    shares = []
    for one, first in zip(samples, plain[1], strict=True):
        images = mirror(to_unit_range(one.pixels), drawn.mirrored[one.rows])
        near, far = ((images - part.noise).flatten(1).norm(dim=1) for part in (one, first))
        assert (near <= far).all()
        shares.append((near < far).float())
    assert 0.3 < float(torch.cat(shares).mean()) <= 1  # three in four on average
    whole = [torch.arange(8)]
    again = BatchReader(config, few_digits, Levels.of(config), lambda _: whole, CPU, 0)(8)[1][0]
    assert torch.equal(again.noise[torch.cat(PARTS)], torch.cat([part.noise for part in samples]))


def test_nearest_noise_and_augmentation_exclude_each_other(few_digits: Images) -> None:
    with pytest.raises(BadInput, match="without augment"):
        run_on(few_digits, noise_candidates=2, augment=0.1)


def test_labels_are_hidden_with_the_other_draws(few_digits: Images) -> None:
    """In whatever parts they are read, and without a change to what else is drawn."""
    config = run_on(few_digits)
    plain = replace(config, model=replace(config.model, classes=10))
    network = replace(plain.model.network, label_dropout=0.5)
    hiding = replace(plain, model=replace(plain.model, network=network))
    hidden = []
    for seen in range(0, 400, 8):
        (drawn, parts), (expected, before) = (feed(c, few_digits, 0)(seen) for c in (hiding, plain))
        assert torch.equal(drawn.sigma, expected.sigma)
        assert drawn.unlabelled is not None
        for part, old in zip(parts, before, strict=True):
            assert part.labels is not None
            assert old.labels is not None
            here = drawn.unlabelled[part.rows]
            assert torch.equal(part.labels, torch.where(here, -1, old.labels))
        hidden.append(drawn.unlabelled)
    assert 0.4 < float(torch.cat(hidden).float().mean()) < 0.6
