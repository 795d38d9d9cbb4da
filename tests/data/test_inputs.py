"""What happens to each kind of input: a test for each row of the table in ``docs/data.md``."""

import io
import json
import os
import re
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.errors import BadInput
from tests.conftest import MODEL
from tests.data.archives import write_tar
from tests.data.sources.conftest import png

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
ROWS: dict[str, Callable[[Path], None]] = {}
GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16


def row(kind: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """The test of the row of the table that begins with these words."""

    def listed(test: Callable[[Path], None]) -> Callable[[Path], None]:
        assert kind not in ROWS
        ROWS[kind] = test
        return test

    return listed


def image(number: int) -> bytes:
    """A PNG file, 4x4, that differs from those of other numbers."""
    return png(np.full((4, 4, 3), number, np.uint8))


def put(root: Path, *names: str) -> Path:
    """A folder with images of these names."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image(number))
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def left_out(images: Images) -> dict[str, tuple[str, ...]]:
    """The names of what was left out, by reason."""
    return {entry.reason: entry.names for entry in images.left_out}


def labels(images: Images) -> list[str]:
    """The name of the class of each image."""
    assert images.labels is not None
    return [images.classes[label] for label in images.labels.tolist()]


def values(images: Images) -> list[int]:
    """A value of each image."""
    found: list[int] = images.pixels[:][:, 0, 0, 0].tolist()
    return found


@row("image files of any suffix, or none")
def _(folder: Path) -> None:
    for suffix, kind in {"avif": "AVIF", "jfif": "JPEG", "jp2": "JPEG2000", "PNG": "PNG"}.items():
        Image.fromarray(GREY).convert("RGB").save(folder / f"a.{suffix}", kind)
    (folder / "bare").write_bytes(image(1))
    (folder / "b.dat").write_bytes(image(2))
    images = load(folder)
    assert len(images) == 6
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for packed in (zipped(folder / "all.zip", files), write_tar(folder / "all.tar", files)):
        assert len(load(packed)) == 6
        assert load(packed).left_out == ()


@row("other files")
def _(folder: Path) -> None:
    put(folder, "a.png")
    for name in ("b.txt", "c.TXT", "d.pdf", "README"):
        (folder / name).write_bytes(b"%PDF-1.5 text")
    images = load(folder)
    assert left_out(images) == {"no images": ("README", "b.txt", "c.TXT", "d.pdf")}
    assert "left out 4 files, no images (.txt 2, no suffix 1, .pdf 1)" in images.notes[0]


@row("archives inside a folder or an archive")
def _(folder: Path) -> None:
    put(folder / "in", "a.png")
    zipped(folder / "in" / "more.zip", {"b.png": image(1)})
    files = {path.name: path.read_bytes() for path in (folder / "in").iterdir()}
    for source in (folder / "in", zipped(folder / "all.zip", files)):
        images = load(source)
        assert list(left_out(images).values()) == [("more.zip",)]
        assert "archives inside the data; unpack them, or give one as --data" in images.notes[0]
    (folder / "in" / "a.png").unlink()
    with pytest.raises(BadInput, match=r"no images that can be read.*1 file, archives inside"):
        load(folder / "in")


@row("folders without files, also in archives")
def _(folder: Path) -> None:
    put(folder, "cat/a.png", "dog/a.png")
    (folder / "bird").mkdir()
    assert load(folder).classes == ("cat", "dog")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.png")}
    with ZipFile(folder.parent / "a.zip", "w") as archive:
        for name in ("cat/", "bird/", "__MACOSX/", "dog/", *files):
            archive.writestr(name, files[name].read_bytes() if name in files else b"")
    with tarfile.open(folder.parent / "a.tar", "w") as tar:
        tar.add(folder, ".")
    for source in (folder, folder.parent / "a.zip", folder.parent / "a.tar"):
        assert load(source).notes == ("folders without files: bird",)


@row("images of formats that Pillow does not open (HEIC, JPEG XL, SVG, camera raw)")
def _(folder: Path) -> None:
    put(folder, "a.png")
    for name in ("b.heic", "c.CR2"):
        (folder / name).write_bytes(b"\0\0\0\x18ftyp")
    images = load(folder)
    assert list(left_out(images).values()) == [("b.heic", "c.CR2")]
    assert "images of formats that Pillow does not open; convert them" in images.notes[0]


@row("TIFF files with more channels than Pillow reads")
def _(folder: Path) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 8, 278: 8, 279: 512}
    fields = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4)
    (folder / "a.tif").write_bytes(header.ljust(712, b"\0"))
    with pytest.raises(BadInput, match=r"a\.tif: its format cannot be identified: .*[sS]ample"):
        load(folder)


@row("hidden files, thumbnails and caches of other programs")
def _(folder: Path) -> None:
    foreign = (
        *("@eaDir/a.png/THUMB.jpg", ".thumbnails/a.png", "__MACOSX/._a.png", "._a.png"),
        *("@Recycle/a.png", "#snapshot/a.png", "a.png~"),
    )
    put(folder, "a.png", *foreign)
    images = load(folder)
    assert values(images) == [0]
    assert set(*left_out(images).values()) == set(foreign)


@row("pictures that this program drew beside images")
def _(folder: Path) -> None:
    put(folder, "a.png", "memorisation.png", "seen/contact-sheet.png")
    assert len(load(folder)) == 3
    (folder / "evaluations.json").write_text("[]")
    (folder / "seen" / "inspection.json").write_text("{}")
    images = load(folder)
    assert values(images) == [0]
    assert left_out(images)["pictures that evaluate or inspect drew"] == (
        "memorisation.png",
        "seen/contact-sheet.png",
    )


@row("linked folders and files")
def _(folder: Path) -> None:
    put(folder / "store", "a.png", "b.png")
    put(folder / "data", "dog/c.png")
    (folder / "data" / "cat").symlink_to(folder / "store")
    (folder / "data" / "loop").symlink_to("..")
    (folder / "data" / "twice").symlink_to("dog")
    (folder / "data" / "dog" / "same.png").symlink_to("c.png")
    (folder / "data" / "gone.png").symlink_to("nothing.png")
    images = load(folder / "data")
    assert labels(images) == ["cat", "cat", "dog"]
    assert left_out(images) == {
        "links to what is read elsewhere in the data": ("loop", "twice", "dog/same.png"),
        "links to nothing": ("gone.png",),
    }


@row("a folder with the name of a data set (`digits`)")
def _(folder: Path) -> None:
    put(folder / "digits", "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert len(load("digits")) == 1
        assert "that lies here" in load("digits").notes[0]


@row("an empty name")
def _(folder: Path) -> None:
    for name in ("", "  "):
        with pytest.raises(BadInput, match="name of the data set is empty"):
            load(name)


@row("several pages or frames (TIFF, GIF, APNG)")
def _(folder: Path) -> None:
    pages = [Image.fromarray(np.full((4, 4), number, np.uint8)) for number in (10, 20, 30)]
    for name in ("a.gif", "b.tif", "c.png"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:])
    images = load(folder)
    assert values(images) == [10] * 3
    assert any("6 further pages or frames of 3 files" in note for note in images.notes)
    every = load(folder, ReadOptions(pages="all"))
    assert values(every) == [10, 20, 30] * 3
    assert not any("pages" in note for note in every.notes)


@row("16 bits")
def _(folder: Path) -> None:
    for most in (255, 4080, 65535):
        array = np.array([[0, most // 2], [most // 4, most]], np.uint16)
        Image.fromarray(array).save(folder / "a.png")
        images = load(folder)
        top = 4095 if most == 4080 else most
        expected = np.round(array * (255 / top))
        np.testing.assert_array_equal(images.pixels[:][0, 0], expected)
        assert f"0..{top}" in images.notes[0]
        assert f"largest value of the 1 image of 16 bits is {most} of 65535" in images.notes[1]
    given = load(folder, ReadOptions(max_value=32768))
    assert given.pixels[:].max() == 255
    assert "1 values above --max-value became 255" in given.notes


@row("PGM files of 10 to 16 bits")
def _(folder: Path) -> None:
    array = (np.arange(64).reshape(8, 8) * 65).astype(">u2")
    (folder / "a.pgm").write_bytes(b"P5\n8 8\n4095\n" + array.tobytes())
    expected = np.round(array * (255 / 4095))
    assert np.abs(load(folder).pixels[:][0, 0].numpy() - expected).max() <= 1


@row("16-bit colour")
def _(folder: Path) -> None:
    array = np.random.default_rng(0).integers(0, 4096, (4, 4, 3))
    (folder / "a.png").write_bytes(sixteen_bit_png(array))
    found = load(folder).pixels[:][0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, np.round(array * (255 / 4095)))


def sixteen_bit_png(array: np.ndarray) -> bytes:
    """Colours ``[H, W, 3]`` as a PNG file of 16 bits a channel."""
    height, width, _ = array.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in array)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks.items())


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


@row("TIFF files of 16 bits that count from white")
def _(folder: Path) -> None:
    for name, photometric in (("black.tif", 1), ("white.tif", 0)):
        deep = Image.fromarray(GREY.astype(np.uint16) * 257)
        deep.save(folder / name, tiffinfo={262: photometric})
        content = (folder / name).read_bytes()
        entry = struct.pack("<HHIHH", 262, 3, 1, photometric, 0)
        plain = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
        (folder / name).write_bytes(content.replace(plain, entry))
    with pytest.raises(BadInput, match=r"white\.tif: its 16 bits count from white"):
        load(folder)
    (images,) = load(folder, ReadOptions(skip_broken=True)).pixels[:]
    np.testing.assert_array_equal(images[0], GREY)


@row("images of 8 and of 16 bits in one set")
def _(folder: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / "a.png")
    Image.fromarray(GREY).save(folder / "b.png")
    images = load(folder)
    np.testing.assert_array_equal(images.pixels[0], images.pixels[1])
    assert "depths are mixed: 1 of 2 images have 16 bits a channel, the others 8" in images.notes


@row("damaged EXIF or ICC data")
def _(folder: Path) -> None:
    whole = image(7)
    place = whole.index(b"IDAT") - 4
    damaged = chunk(b"iCCP", b"no profile")[:-4] + b"\0\0\0\0"
    (folder / "a.png").write_bytes(whole[:place] + damaged + whole[place:])
    exif = b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 9
    Image.fromarray(GREY).save(folder / "b.jpg", exif=exif, quality=95)
    jpeg = (folder / "b.jpg").read_bytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x>\xa8\xff</x>"
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    (folder / "c.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    Image.fromarray(GREY).save(folder / "b.png")
    images = load(folder)
    assert values(images)[0] == 7
    assert len(images) == 4
    assert any("a.png: has damaged metadata" in note for note in images.notes)


@row("very large images")
def _(folder: Path) -> None:
    put(folder, "a.png")
    with pytest.raises(BadInput, match=r"16 pixels, more than --max-pixels 15"):
        load(folder, ReadOptions(max_pixels=15))
    assert len(load(folder, ReadOptions(max_pixels=16))) == 1
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(BadInput, match="3,600,000,000 pixels"):
        load(folder)


@row("zip archives with backslashes, names in UTF-8 without saying so, or a single top folder")
def _(folder: Path) -> None:
    files = {f"pics\\{kind}\\{n}.png": image(n) for n, kind in enumerate(("cat", "dog"))}
    assert labels(load(zipped(folder / "a.zip", files))) == ["cat", "dog"]
    names = {"pics/caf\xe9/0.png": 1, "pics/dog/1.png": 0}
    inside = {"pics/dataset.json": json.dumps({"labels": [["caf\xe9/0.png", 5], ["dog/1.png", 4]]})}
    path = zipped(
        folder / "b.zip",
        {name: image(n) for name, n in names.items()}
        | {name: text.encode() for name, text in inside.items()},
    )
    assert labels(load(path)) == ["5", "4"]
    content = path.read_bytes()
    places = [
        found.start() for found in re.finditer(rb"PK(\x01\x02..|\x03\x04)", content, re.DOTALL)
    ]
    unsaid = bytearray(content)
    for place in places:
        flags = place + (8 if content[place + 2] == 1 else 6)
        unsaid[flags + 1] &= ~0x08 & 0xFF
    assert unsaid != content
    path.write_bytes(unsaid)
    assert labels(load(path)) == ["5", "4"]


@row("encrypted zip archives, or packed by an unknown method")
def _(folder: Path) -> None:
    for offset, value, message in ((8, 1, "encrypted"), (10, 9, "packed by Deflate64")):
        path = zipped(folder / "a.zip", {"a.png": image(0)})
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x01\x02") + offset] = value
        content[content.index(b"PK\x03\x04") + offset - 2] = value
        path.write_bytes(content)
        with pytest.raises(BadInput, match=rf"a\.zip/a\.png is {message}"):
            load(path)


@row("damaged LZMA in zip archives")
def _(folder: Path) -> None:
    with ZipFile(folder / "a.zip", "w", ZIP_LZMA) as archive:
        for number in range(2):
            archive.writestr(f"{number}.png", image(number))
    content = bytearray((folder / "a.zip").read_bytes())
    begin = content.index(b"0.png") + 20
    content[begin : begin + 30] = bytes(value ^ 255 for value in content[begin : begin + 30])
    (folder / "a.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"Cannot decode the image .*a\.zip/0\.png: Corrupt input"):
        load(folder / "a.zip")
    assert values(load(folder / "a.zip", ReadOptions(skip_broken=True))) == [1]


@row("names that are not UTF-8")
def _(folder: Path) -> None:
    for name, number in ((b"gr\xfcn", 1), (b"blau", 2)):
        path = folder / "in" / os.fsdecode(name)
        path.mkdir(parents=True)
        (path / "a.png").write_bytes(image(number))
    images = load(folder / "in")
    assert images.classes == ("blau", "gr\\udcfcn")
    named = replace(MODEL, classes=2, class_names=images.classes)
    assert to_json(named)["class_names"][1] == "gr\\udcfcn"
    path = zipped(folder / "a.zip", {"caf\xe9.png": image(0)})
    path.write_bytes(path.read_bytes().replace("caf\xe9".encode(), b"caf\xe9\xff"))
    with pytest.raises(BadInput, match=r"a name in it, .* is not UTF-8"):
        load(path)


@row("suffixes in capitals (`.ZIP`, `.NPZ`, `.TAR`, `.PARQUET`)")
def _(folder: Path) -> None:
    assert len(load(zipped(folder / "A.ZIP", {"a.png": image(0)}))) == 1
    assert len(load(write_tar(folder / "A.TAR", {"a.png": image(0)}))) == 1
    np.savez(folder / "a.npz", images=np.zeros((2, 4, 4), np.uint8))
    (folder / "a.npz").rename(folder / "A.NPZ")
    assert len(load(folder / "A.NPZ")) == 2


@row("damaged or joined tar archives")
def _(folder: Path) -> None:
    path = write_tar(folder / "a.tar", {f"{n}.png": image(n) for n in range(3)})
    whole = path.read_bytes()
    second = whole.index(b"1.png")
    path.write_bytes(whole[: second + 150] + b"9" + whole[second + 151 :])
    with pytest.raises(BadInput, match=rf"damaged at byte {second}"):
        load(path)
    header = bytearray(whole)
    header[124:136], header[148:156] = b"77777777777\0", b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    with pytest.raises(BadInput, match="unexpected end of data"):
        load(path)
    path.write_bytes(whole + whole)
    with pytest.raises(BadInput, match="holds more behind its end"):
        load(path)


@row("links and repeated names in archives")
def _(folder: Path) -> None:
    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number in (1, 2):
            member = tarfile.TarInfo("a.png")
            member.size = len(image(number))
            archive.addfile(member, io.BytesIO(image(number)))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        archive.addfile(link)
    images = load(path)
    assert values(images) == [2]
    assert left_out(images) == {
        "links inside the archive": ("b.png",),
        "named like a later file of the archive": ("a.png",),
    }


@row("WebDataset: dots in names")
def _(folder: Path) -> None:
    files: dict[str, bytes] = {}
    for number in range(3):
        files |= {f"img.v2.{number}.png": image(number), f"img.v2.{number}.cls": b"%d" % number}
    images = load(write_tar(folder / "a.tar", files))
    assert labels(images) == ["0", "1", "2"]


@row("WebDataset: suffixes in capitals")
def _(folder: Path) -> None:
    files: dict[str, bytes] = {}
    for number in range(3):
        files |= {f"{number}.PNG": image(number), f"{number}.CLS": b"%d" % number}
    assert labels(load(write_tar(folder / "a.tar", files))) == ["0", "1", "2"]
    files = {}
    for number in range(2):
        files |= {f"{number}.Left.png": image(number), f"{number}.Right.png": image(number + 5)}
        files[f"{number}.cls"] = b"1"
    path = write_tar(folder / "b.tar", files)
    assert values(load(path, ReadOptions(image_key="Right"))) == [5, 6]


@row("WebDataset: several images in a sample")
def _(folder: Path) -> None:
    files: dict[str, bytes] = {}
    for number in range(3):
        for field in ("input", "mask"):
            files[f"{number}.{field}.png"] = image(number + 100 * (field == "mask"))
        files[f"{number}.cls"] = b"0"
    path = write_tar(folder / "a.tar", files)
    with pytest.raises(BadInput, match="choose one with --image-key, such as --image-key input"):
        load(path)
    for key in ("mask", "mask.png"):
        images = load(path, ReadOptions(image_key=key))
        assert values(images) == [100, 101, 102]
        assert [len(names) for names in left_out(images).values()] == [3]


@row("WebDataset: samples without an image")
def _(folder: Path) -> None:
    files = {"0.input.png": image(0), "0.cls": b"1", "1.cls": b"1", "1.txt": b"no image"}
    images = load(write_tar(folder / "a.tar", files))
    assert len(images) == 1
    assert left_out(images) == {"of samples without an image": ("1.cls", "1.txt")}


@row("WebDataset: files of a sample apart from each other")
def _(folder: Path) -> None:
    files = {"a.png": image(0), "b.png": image(1), "a.cls": b"1", "b.cls": b"2"}
    with pytest.raises(BadInput, match=r"sample a do not follow each other in .*a\.tar"):
        load(write_tar(folder / "a.tar", files))


@row("arrays with channels first or last")
def _(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    for name, array in (("last", pixels), ("first", pixels.transpose(0, 3, 1, 2))):
        np.save(folder / f"{name}.npy", array.copy())
        np.savez(folder / f"{name}.npz", images=array)
    for file in folder.iterdir():
        np.testing.assert_array_equal(load(file).pixels[:].permute(0, 2, 3, 1), pixels)
    np.save(folder / "doubt.npy", np.zeros((2, 3, 8, 3), np.uint8))
    with pytest.raises(BadInput, match="Give --layout channels-first or channels-last"):
        load(folder / "doubt.npy")
    assert load(folder / "doubt.npy", ReadOptions(layout="channels-first")).shape == (3, 8, 3)
    assert load(folder / "doubt.npy", ReadOptions(layout="channels-last")).shape == (3, 3, 8)


@row("floating-point arrays")
def _(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3))
    pixels[0, 0, 0] = (0, 128, 255)
    ranges = {"unit": pixels / 255, "signed": pixels / 127.5 - 1, "bytes": pixels.astype(float)}
    for name, array in ranges.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
        images = load(folder / f"{name}.npy")
        np.testing.assert_array_equal(images.pixels[:].permute(0, 2, 3, 1), pixels)
        assert "became 0..255" in images.notes[0]
    np.save(folder / "latents.npy", pixels / 20 - 3)
    with pytest.raises(BadInput, match=r"none of the ranges of images.*--value-range.*--latents"):
        load(folder / "latents.npy")
    stated = load(folder / "latents.npy", ReadOptions(value_range=(-3, 9.75)))
    np.testing.assert_array_equal(stated.pixels[:].permute(0, 2, 3, 1), pixels)
    with pytest.raises(BadInput, match=r"image 0 holds -3, outside of --value-range 0 1"):
        load(folder / "latents.npy", ReadOptions(value_range=(0, 1)))


@row("arrays with values that are no numbers")
def _(folder: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        array = np.zeros((5, 8, 8), np.float32)
        array[3, 2, 1] = value
        np.save(folder / "a.npy", array)
        np.savez(folder / "a.npz", images=array)
        for file in folder.iterdir():
            with pytest.raises(BadInput, match=rf"image 3 holds {value}"):
                load(file)


@row("MedMNIST's and Keras' `.npz` files")
def _(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    kinds = np.array([[1], [2], [1], [3]])
    np.savez(
        folder / "med.npz",
        train_images=pixels,
        train_labels=kinds,
        val_images=pixels,
        val_labels=kinds,
    )
    images = load(folder / "med.npz")
    assert labels(images) == ["1", "2", "1", "3"]
    assert any("the part train is read, not val" in note for note in images.notes)
    assert len(load(folder / "med.npz", ReadOptions(split="val"))) == 4
    np.savez(folder / "keras.npz", x_train=pixels, y_train=[0, 1, 0, 1], x_test=pixels[:1])
    assert labels(load(folder / "keras.npz")) == ["0", "1", "0", "1"]


@row("tables: other columns, of any type")
def _(folder: Path) -> None:
    maps = pa.array([[("k", 1)], [("k", 2)]], pa.map_(pa.string(), pa.int64()))
    cells = [{"bytes": image(n), "path": None} for n in range(2)]
    pq.write_table(pa.table({"image": pa.array(cells), "other": maps}), folder / "a.parquet")
    assert values(load(folder / "a.parquet")) == [0, 1]


@row("tables: files with unequal columns")
def _(folder: Path) -> None:
    cells = pa.array([{"bytes": image(1), "path": None}])
    pq.write_table(pa.table({"image": cells, "cls": ["a"]}), folder / "a.parquet")
    pq.write_table(pa.table({"image": cells, "other": ["a"]}), folder / "b.parquet")
    assert len(load(f"{folder}/*.parquet")) == 2
    with pytest.raises(BadInput, match=r"b\.parquet has no column 'cls', unlike"):
        load(f"{folder}/*.parquet", ReadOptions(label_column="cls"))


@row("tables: columns of paths or of bytes")
def _(folder: Path) -> None:
    put(folder, "one/a.png", "one/b.png")
    paths, contents = ["one/a.png", "one/b.png"], [image(0), image(1)]
    pq.write_table(pa.table({"where": paths, "n": [3, 4]}), folder / "a.parquet")
    pq.write_table(pa.table({"data": contents, "n": [3, 4]}), folder / "b.parquet")
    for name in ("a", "b"):
        images = load(folder / f"{name}.parquet", ReadOptions(label_column="n"))
        assert values(images) == [0, 1]
        assert labels(images) == ["3", "4"]
    pq.write_table(pa.table({"data": contents, "where": paths}), folder / "c.parquet")
    with pytest.raises(BadInput, match="in the columns data, where; choose one with --image-key"):
        load(folder / "c.parquet")
    assert len(load(folder / "c.parquet", ReadOptions(image_key="data"))) == 2


@row("tables without a column of class labels")
def _(folder: Path) -> None:
    cells = pa.array([{"bytes": image(n), "path": None} for n in range(3)])
    columns = {"image": cells, "mask": cells, "label": [1.0, 0.0, 1.0], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    images = load(folder / "a.parquet")
    assert images.labels is None
    assert images.notes == (
        "images are read from the column image, not mask (--image-key)",
        "no labels: no column has the type of class labels; --label-column chooses one of label, "
        "text",
    )
    chosen = ReadOptions(label_column="label", image_key="mask")
    assert labels(load(folder / "a.parquet", chosen)) == ["1", "0", "1"]
    assert load(folder / "a.parquet", chosen).notes == ()


@row("class folders named by numbers")
def _(folder: Path) -> None:
    put(folder, *(f"{number}/a.png" for number in range(12)))
    assert load(folder).classes == tuple(map(str, range(12)))
    put(folder, "01/a.png")
    images = load(folder)
    assert images.classes[:3] == ("0", "01", "1")
    assert images.class_numbers == tuple(range(13))


@row("labels that do not begin at 0, or are large")
def _(folder: Path) -> None:
    pixels = np.zeros((4, 8, 8), np.uint8)
    np.savez(folder / "a.npz", images=pixels, labels=[3, 1, 10**8, 1])
    images = load(folder / "a.npz")
    assert images.classes == ("1", "3", "100000000")
    assert images.class_numbers == (1, 3, 10**8)
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 2, 0]


@row("classes of a table without images")
def _(folder: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    cells = [{"bytes": image(n), "path": None} for n in range(2)]
    for kinds, expected in (([2, 0], ["c", "a"]), ([-1, -1], None)):
        rows = {"image": cells, "kind": kinds}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / "a.parquet")
        images = load(folder / "a.parquet")
        assert (images.labels is None) == (expected is None)
        if expected:
            assert labels(images) == expected
            assert images.class_numbers == (0, 2)
            assert "1 of 3 classes have no images and are left out: b" in images.notes


@row("`metadata.jsonl`, `metadata.csv` or `metadata.parquet` beside images")
def _(folder: Path) -> None:
    put(folder / "a", "x.png", "y.png")
    put(folder / "b", "x.png", "in/y.png")
    (folder / "a" / "metadata.csv").write_text("file_name,label,text\nx.png,4,hello\ny.png,2,you\n")
    lines = [{"file_name": "x.png", "label": "cat"}, {"file_name": "in/y.png", "label": "dog"}]
    (folder / "b" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert labels(load(folder / "a")) == ["4", "2"]
    assert labels(load(folder / "b")) == ["dog", "cat"]
    assert labels(load(folder / "a", ReadOptions(label_column="text"))) == ["hello", "you"]
    (folder / "a" / "metadata.csv").write_text("file_name,text\nx.png,hello\ny.png,you\n")
    images = load(folder / "a")
    assert images.labels is None
    assert "no column label, but file_name, text; choose one with --label-column" in images.notes[0]
    (folder / "b" / "in" / "METADATA.CSV").write_text("file_name,text\ny.png,you\n")
    with pytest.raises(BadInput, match=r"in/METADATA\.CSV has no column label.*all of .* or none"):
        load(folder / "b")


@row("other tables beside images without labels")
def _(folder: Path) -> None:
    put(folder, "a.png", "b.png")
    (folder / "train.csv").write_text("file,label\na.png,0\nb.png,1\n")
    note = "no labels: train.csv is not read; give --labels FILE if it holds them"
    assert note in load(folder).notes
    given = load(folder, ReadOptions(labels=folder / "train.csv"))
    assert note not in given.notes
    assert labels(given) == ["0", "1"]


@row("folders `train`, `val`, `test` around class folders")
def _(folder: Path) -> None:
    names = [f"{part}/{kind}/a.png" for part in ("train", "val") for kind in ("cat", "dog")]
    put(folder, *names)
    images = load(folder)
    assert labels(images) == ["cat", "dog"]
    assert left_out(images) == {
        "in the part val, as train is read (--split)": ("val/cat/a.png", "val/dog/a.png")
    }
    assert values(load(folder, ReadOptions(split="validation"))) == [2, 3]
    with pytest.raises(BadInput, match="has the parts train, val; choose one with --split"):
        load(folder, ReadOptions(split="test"))
    for name in ("train", "val"):
        (folder / name).rename(folder / f"{name}_set2017")
    for split, expected in ((None, [0, 1]), ("val", [2, 3])):
        assert values(load(folder, ReadOptions(split=split))) == expected
    put(folder, "more/cat/a.png")
    assert any(
        "named as parts of the data, but read with all: train_set2017, val_set2017" in note
        for note in load(folder).notes
    )


@row("folders named as parts that are no parts (`trainA`, or `train` beside classes)")
def _(folder: Path) -> None:
    said = "named as parts of the data, but read with all: {}"
    images = load(put(folder / "a", "trainA/a.png", "trainB/b.png", "testA/c.png"))
    assert images.classes == ("testA", "trainA", "trainB")
    assert said.format("testA, trainA, trainB") in images.notes
    images = load(put(folder / "b", "cat/a.png", "dog/b.png", "train/c.png"))
    assert images.classes == ("cat", "dog", "train")
    assert said.format("train") in images.notes


@row("folders inside of class folders")
def _(folder: Path) -> None:
    put(folder, "a/airfield/a.png", "a/alley/b.png", "b/barn/c.png")
    images = load(folder)
    assert images.classes == ("a", "b")
    assert images.notes == (
        "labels are the folders a, b; those inside of them, airfield, alley, barn, are not",
    )
    assert load(put(folder / "one", "cat/images/a.png", "dog/images/b.png")).notes == ()


@row("class names that differ in capitals, spaces, or as `1` and `01` do")
def _(folder: Path) -> None:
    put(folder, "Cat/a.png", "cat /a.png", "cat/a.png", "dog/a.png", "1/a.png", "01/a.png")
    images = load(folder)
    assert images.classes == ("01", "1", "Cat", "cat", "cat ", "dog")
    (note,) = images.notes
    assert note == "classes of nearly the same name: '01' and '1', 'Cat' and 'cat' and 'cat '"


@row("images beside class folders")
def _(folder: Path) -> None:
    put(folder, "cat/a.png", "dog/b.png", "cover.png")
    images = load(folder)
    assert images.labels is None
    assert "no labels: cover.png lies beside the folders cat, dog" in images.notes[0]
    labelled = load(folder, ReadOptions(skip_unlabelled=True))
    assert labels(labelled) == ["cat", "dog"]
    (dropped,) = left_out(labelled).values()
    assert dropped == (str(folder / "cover.png"),)


@row("classes in the names of files (`cat_01.png`)")
def _(folder: Path) -> None:
    forms = [("cat_{}.png", "dog_{}.png"), ("cat.{}.png", "old.dog.{}.png")]
    forms += [("cat ({}).png", "dog-{}.png"), ("cat_x{}f.png", "dog_y{}f.png")]
    forms += [("00{}_cat.png", "{}-old.dog.png")]
    for number, (first, second) in enumerate(forms):
        root = folder / str(number)
        put(root, *(form.format(index) for form in (first, second) for index in range(3)))
        images = load(root)
        assert images.labels is None
        assert re.search(r"names (begin|end) with cat \(3\), ", images.notes[0])
        assert "give --labels FILE" in images.notes[0]
    for names in (("a.png", "b.png"), ("1.png", "2.png", "3.png"), ("x_1.png", "x_2.png")):
        assert load(put(folder / names[0], *names)).notes == ()


@row("CSV files of labels with spaces, quotes, semicolons, or from a spreadsheet")
def _(folder: Path) -> None:
    put(folder / "in", "a.png", "b.png", "c, d.png")
    texts = {
        "spaces": b'file, label\na.png, 10\nb.png , 9\n"c, d.png", 9\n',
        "quotes": b'"file","label"\n"a.png","10"\n"b.png","9"\n"c, d.png","9"\n',
        "semicolons": "File;Label\r\na.png;10\r\nb.png;9\r\nc, d.png;9\r\n".encode("utf-8-sig"),
        "wide": "file\tlabel\na.png\t10\nb.png\t9\nc, d.png\t9\n".encode("utf-16"),
    }
    for name, content in texts.items():
        (folder / f"{name}.csv").write_bytes(content)
        images = load(folder / "in", ReadOptions(labels=folder / f"{name}.csv"))
        assert labels(images) == ["10", "9", "9"], name
        assert images.classes == ("9", "10")
    wrong = {
        'file,label\n"a.png,1\n': "is not valid CSV",
        "file,label\na.png,cat, black\n": r"more cells than the header in the line of a\.png",
        "file,label,label\na.png,1,2\n": "has several columns label",
    }
    for text, message in wrong.items():
        (folder / "wrong.csv").write_text(text)
        with pytest.raises(BadInput, match=message):
            load(folder / "in", ReadOptions(labels=folder / "wrong.csv"))


@row("numbers as `1` and `1.0`")
def _(folder: Path) -> None:
    put(folder / "in", "a.png", "b.png", "c.png")
    texts = {
        "a.csv": "file,label\na.png,1\nb.png,1.0\nc.png,10\n",
        "a.json": '{"a.png": 1, "b.png": 1.0, "c.png": 10}',
        "a.jsonl": "".join(
            f'{{"file": "{name}.png", "label": {label}}}\n'
            for name, label in (("a", 1), ("b", 1.0), ("c", 10.0))
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        assert labels(load(folder / "in", ReadOptions(labels=folder / name))) == ["1", "1", "10"]
    shard = {f"{name}.png": image(0) for name in "abc"}
    classes = {"a.cls": b"1", "b.cls": b"1.0", "c.json": b'{"label": 10.0}'}
    ordered = dict(sorted({**shard, **classes}.items()))
    assert labels(load(write_tar(folder / "a.tar", ordered))) == ["1", "1", "10"]
    (folder / "a.csv").write_text("file,label\na.png,cat\nb.png,1.50\nc.png,1.5\n")
    with pytest.raises(BadInput, match=r"the labels 1\.5 and 1\.50, which are the same number"):
        load(folder / "in", ReadOptions(labels=folder / "a.csv"))


@row("names in composed and decomposed Unicode")
def _(folder: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
    put(folder / "in", f"{decomposed}.png")
    (folder / "a.csv").write_text(f"file,label\n{composed}.png,cat\n")
    assert labels(load(folder / "in", ReadOptions(labels=folder / "a.csv"))) == ["cat"]
    put(folder / "two", f"{composed}/a.png", f"{decomposed}/b.png", "tea/c.png")
    assert load(folder / "two").classes == (composed, "tea")


@row(
    "labels that contradict each other, belong to no image or to several of one name, or exceed "
    "64 bits"
)
def _(folder: Path) -> None:
    put(folder / "in", "a.png", "b.png")
    cases = {
        "file,label\na.png,1\nb.png,1\na.png,2\n": "two labels for a.png: 1 and 2",
        "file,label\na.png,1\nb.png,1\nc.png,2\n": "1 files that are no images of the data: c.png",
        f"file,label\na.png,1\nb.png,{2**63}\n": "has the label 9223372036854775808 for b.png",
        "file,label\nin/a.png,1\nin/b.png,1\n": "no label for a.png.*not like in/a.png",
    }
    for text, message in cases.items():
        (folder / "a.csv").write_text(text)
        with pytest.raises(BadInput, match=message):
            load(folder / "in", ReadOptions(labels=folder / "a.csv"))
    (folder / "a.json").write_text('{"a.png": 1, "b.png": 1, "a.png": 2}')
    with pytest.raises(BadInput, match=r"two labels for a\.png: 1 and 2"):
        load(folder / "in", ReadOptions(labels=folder / "a.json"))
    for shard in "ab":
        write_tar(folder / f"{shard}.tar", {"0.png": image(0), "0.txt": b""})
    (folder / "a.csv").write_text("file,label\n0.png,1\n")
    with pytest.raises(BadInput, match=r"one label for 0\.png, and there are 2 images of"):
        load(f"{folder}/*.tar", ReadOptions(labels=folder / "a.csv"))


@row("images without a label, where others have one")
def _(folder: Path) -> None:
    put(folder / "in", "a.png", "b.png", "c.png")
    texts = {
        "a.csv": "file,label\na.png,cat\nb.png,dog\n",
        "b.csv": "file,label\na.png,cat\nb.png,dog\nc.png,\n",
        "c.json": '{"a.png": "cat", "b.png": "dog", "c.png": null}',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        with pytest.raises(BadInput, match=r"no label for c\.png.*--skip-unlabelled"):
            load(folder / "in", ReadOptions(labels=folder / name))
        images = load(folder / "in", ReadOptions(labels=folder / name, skip_unlabelled=True))
        assert labels(images) == ["cat", "dog"]
        assert [len(names) for names in left_out(images).values()] == [1]


@row("transparent images")
def _(folder: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    Image.fromarray(array).save(folder / "a.png")
    put(folder, "b.png")
    assert load(folder).shape == (3, 4, 4)
    kept = load(folder, ReadOptions(transparency="keep"))
    np.testing.assert_array_equal(kept.pixels[0].permute(1, 2, 0), array)
    assert kept.pixels[1][:, 0, 0].tolist() == [0, 0, 0, 255]
    np.testing.assert_array_equal(load_image(folder / "a.png", True).permute(1, 2, 0), array)


@pytest.mark.parametrize("kind", list(ROWS))
def test_each_row_of_the_table_holds(kind: str, tmp_path: Path) -> None:
    ROWS[kind](tmp_path)


def test_the_table_has_a_row_for_each_of_these_tests() -> None:
    text = DOCUMENT.read_text().partition("| kind of input |")[2].partition("\n\n")[0]
    kinds = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[2:]]
    assert kinds == list(ROWS)
