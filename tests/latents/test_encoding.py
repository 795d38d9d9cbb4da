from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multistage_diffusion.data import Images, load
from multistage_diffusion.data.mapped import MappedRows
from multistage_diffusion.data.sources.latents import normalised
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents import encode, find_autoencoder
from multistage_diffusion.latents.encoding import (
    EncodeOptions,
    Progress,
    encode_images,
    encoding_of,
    no_progress,
)

SHARD = 7 * 4 * 16 * 4  # bytes of 7 images as latents of 4x4x4 in float32


def build(
    images: Images,
    name: str,
    folder: Path,
    progress: Progress = no_progress,
    options: EncodeOptions | None = None,
) -> Images:
    options = options or EncodeOptions(stored="float32")
    autoencoder = find_autoencoder(name, images)
    encoding = encoding_of(images, autoencoder, options, "colours", {}, SHARD)
    encode_images(images, autoencoder, encoding, folder, progress)
    return load(folder)


def raw(latents: Images) -> Images:
    assert latents.latents
    count = len(latents.latents.shift)
    plain = replace(latents.latents, shift=(0.0,) * count, scale=(1.0,) * count)
    return normalised(latents, plain)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_read_is_what_was_encoded(tmp_path: Path, colours: Images) -> None:
    latents = build(colours, "pca-f2c4", tmp_path / "out")
    autoencoder = find_autoencoder("pca-f2c4", colours)
    assert torch.equal(raw(latents).pixels[:], encode(autoencoder, colours.pixels[:]).mean)
    mirrored = raw(latents).mirrored
    assert isinstance(mirrored, MappedRows)
    assert torch.equal(mirrored[:], encode(autoencoder, colours.pixels[:].flip(3)).mean)
    assert latents.labels is not None
    assert colours.labels is not None
    assert torch.equal(latents.labels, colours.labels)
    assert latents.classes == colours.classes


def test_every_channel_is_normalised(tmp_path: Path, colours: Images) -> None:
    latents = build(colours, "pca-f2c4", tmp_path / "out")
    assert latents.mirrored is not None
    values = torch.cat([latents.pixels[:], latents.mirrored[:]]).double()
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(4).double(), atol=1e-6, rtol=0)
    deviation = values.std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(4).double(), atol=1e-5, rtol=0)


def test_an_interrupted_command_continues_bit_by_bit(tmp_path: Path, colours: Images) -> None:
    build(colours, "pca-f2c4", tmp_path / "whole")

    class Killed(Exception):
        pass

    def killed_after(shards: int) -> Progress:
        def progress(numbers: Iterator[int], total: int) -> Iterator[int]:
            for done, number in enumerate(numbers):
                if done == shards:
                    raise Killed
                yield number

        return progress  # type: ignore[return-value]

    for shards in (0, 1, 3):
        with pytest.raises(Killed):
            build(colours, "pca-f2c4", tmp_path / "parts", killed_after(shards))
        with pytest.raises(BadInput, match="not complete"):
            load(tmp_path / "parts")
        # killed between the files of a shard
        (tmp_path / "parts" / "00005.npy").write_bytes(b"half")
        (tmp_path / "parts" / ".00004.npy.tmp").write_bytes(b"less")
    build(colours, "pca-f2c4", tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_two_processes_write_what_one_does(
    tmp_path: Path, colours: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(colours, "pca-f2c4", tmp_path / "one")
    from multistage_diffusion import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "encoding.json").write_bytes(
        (tmp_path / "one" / "encoding.json").read_bytes()
    )
    autoencoder = find_autoencoder("pca-f2c4", colours)
    encoding = encoding_of(
        colours, autoencoder, EncodeOptions(stored="float32"), "colours", {}, SHARD
    )
    with pytest.raises(BadInput, match=r"latents\.json"):  # which the other process writes
        encode_images(colours, autoencoder, encoding, tmp_path / "two")
    assert len(list((tmp_path / "two").glob("*.npy"))) == 2 * 3  # shards 1, 3, 5 of 6
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    monkeypatch.setattr(distributed, "is_main_process", lambda: True)
    encode_images(colours, autoencoder, encoding, tmp_path / "two")
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_posterior_samples_have_the_posteriors_spread(
    tmp_path: Path, colours: Images, kl_folder: Path
) -> None:
    means = raw(build(colours, str(kl_folder), tmp_path / "mean")).pixels[:]
    options = EncodeOptions(stored="float32", posterior="sample", seed=3)
    drawn = raw(build(colours, str(kl_folder), tmp_path / "drawn", options=options)).pixels[:]
    again = raw(build(colours, str(kl_folder), tmp_path / "again", options=options)).pixels[:]
    deviation = encode(find_autoencoder(str(kl_folder), colours), colours.pixels[:]).deviation
    assert deviation is not None
    assert torch.equal(drawn, again)
    z: Tensor = (drawn - means) / deviation
    assert abs(float(z.mean())) < 4 / z.numel() ** 0.5
    assert abs(float(z.std()) - 1) < 4 / z.numel() ** 0.5


@pytest.mark.parametrize(
    ("stored", "least", "most"),
    [("float32", 0, 0), ("float16", 5e-5, 5e-4), ("bfloat16", 5e-4, 4e-3)],
)
def test_the_stated_rounding_is_that_of_the_files(
    tmp_path: Path, colours: Images, stored: str, least: float, most: float
) -> None:
    options = EncodeOptions(stored=stored)  # type: ignore[arg-type]
    autoencoder = find_autoencoder("pca-f2c4", colours)
    encoding = encoding_of(colours, autoencoder, options, "colours", {})
    index = encode_images(colours, autoencoder, encoding, tmp_path / "out")
    images = torch.cat([colours.pixels[:], colours.pixels[:].flip(3)])
    exact = encode(autoencoder, images).mean.double()
    kept = raw(load(tmp_path / "out"))
    assert kept.mirrored is not None
    found = torch.cat([kept.pixels[:], kept.mirrored[:]]).double()
    rounding = float((found - exact).norm() / found.norm())
    assert index.rounding == pytest.approx(rounding, rel=1e-9)
    assert least <= index.rounding <= most


def test_other_latents_are_refused(tmp_path: Path, colours: Images) -> None:
    build(colours, "pca-f2c4", tmp_path / "out")
    fewer = colours.at(torch.arange(30))
    with pytest.raises(BadInput, match="of other images"):
        build(fewer, "pca-f2c4", tmp_path / "out")
    with pytest.raises(BadInput, match="of another autoencoder"):
        build(colours, "pca-f2c3", tmp_path / "out")
    with pytest.raises(BadInput, match="other options"):
        build(colours, "pca-f2c4", tmp_path / "out", options=EncodeOptions(mirrored=False))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds other files"):
        build(colours, "pca-f2c4", tmp_path / "other")
    with pytest.raises(BadInput, match="latents already"):
        build(load(tmp_path / "out"), "identity", tmp_path / "twice")


def test_the_autoencoder_of_latents_is_used_again(tmp_path: Path, colours: Images) -> None:
    build(colours, "pca-f2c4", tmp_path / "train")
    fewer = colours.at(torch.arange(30, 40))
    latents = build(fewer, str(tmp_path / "train"), tmp_path / "test")
    fitted = find_autoencoder("pca-f2c4", colours)
    assert latents.latents
    assert latents.latents.autoencoder == fitted.info
    assert torch.equal(raw(latents).pixels[:], encode(fitted, fewer.pixels[:]).mean)


def test_too_large_values_for_float16(colours: Images) -> None:
    from multistage_diffusion.latents.shards import _write_values

    with pytest.raises(BadInput, match="bfloat16"):
        _write_values(Path("unused"), torch.full((1, 1, 1, 1), 1e6), "float16")
    with pytest.raises(BadInput, match="not finite"):
        _write_values(Path("unused"), torch.full((1, 1, 1, 1), torch.nan), "float32")


def test_edited_files_are_named(tmp_path: Path, colours: Images) -> None:
    build(colours, "pca-f2c4", tmp_path / "out")
    for name, old, new, words in (
        ("encoding.json", '"factor": 2', '"factor": 0', "factor"),
        ("latents.json", '"mean": [', '"mean": [1.0,', "4 channels"),
        ("latents.json", '"labels"', '"label"', "labels"),
    ):
        path = tmp_path / "out" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(BadInput, match=words):
            load(tmp_path / "out")
        path.write_text(text)
