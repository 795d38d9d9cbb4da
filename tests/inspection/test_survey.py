import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection import Findings, conclude, survey
from multistage_diffusion.space import to_unit_range

READ = ReadOptions(size=(16, 24), skip_broken=True)


def inspected(source: Path | str, options: ReadOptions = READ) -> Findings:
    return conclude(survey(str(source), options))


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root), "zip", root))


def as_parquet(root: Path) -> Path:
    """One row for each file, in the order a folder has."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    cells = [
        {"bytes": path.read_bytes(), "path": path.relative_to(root).as_posix()} for path in files
    ]
    table = pa.table({"image": cells, "label": [path.parent.name for path in files]})
    info = {
        "info": {
            "features": {
                "image": {"_type": "Image"},
                "label": {"dtype": "string", "_type": "Value"},
            }
        }
    }
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}),
        root.with_suffix(".parquet"),
    )
    return root.with_suffix(".parquet")


@pytest.mark.parametrize("fit", ["center-crop", "resize", "pad"])
def test_statistics_are_those_of_the_images_as_they_are_read(mixed: Path, fit: str) -> None:
    options = replace(READ, fit=fit)  # type: ignore[arg-type]
    histogram = survey(str(mixed), options).histogram
    images = load(mixed, options)
    values = to_unit_range(images.pixels[:]).double().numpy()
    np.testing.assert_allclose(histogram.means, values.mean((0, 2, 3)), atol=1e-7)
    np.testing.assert_allclose(histogram.deviations, values.std((0, 2, 3)), atol=1e-7)
    assert histogram.sigma_data == pytest.approx(values.std(), abs=1e-7)
    assert histogram.sigma_data == pytest.approx(images.standard_deviation, rel=1e-12)


def test_what_is_found(mixed: Path) -> None:
    found = inspected(mixed)
    seen = found.survey
    assert [Path(broken.where).name for broken in seen.broken] == ["cut.png", "text.jpg"]
    assert seen.sizes == {(96, 128): 9, (48, 64): 1, (80, 60): 2, (70, 70): 1, (128, 96): 1}
    assert found.labels == {"cat": 5, "dog": 9}
    modes = {mode: (count, done) for (mode, done), count in seen.modes.items() if count == 1}
    assert modes["grey"] == (1, "")
    assert modes["CMYK"][1] == "were made for print (CMYK) and were converted to RGB"
    assert "16 bits" in modes["16-bit grey"][1]
    assert modes["palette"] == (1, "")
    assert "laid on white" in modes["RGB, alpha"][1]
    assert "turned upright" in modes["RGB"][1]


def test_copies_and_near_duplicates_are_found_and_nothing_else(mixed: Path) -> None:
    found = inspected(mixed)
    names = [Path(name).name for name in found.survey.names]
    assert [{names[index] for index in group} for group in found.copies] == [{"0.png", "again.bmp"}]
    pairs = {
        (frozenset((names[pair.first], names[pair.second])), pair.mirrored) for pair in found.near
    }
    assert pairs == {
        (frozenset(("1.png", "compressed.jpg")), False),
        (frozenset(("2.png", "smaller.png")), False),
        (frozenset(("3.png", "mirrored.png")), True),
    }


def test_sources_of_the_same_images_give_the_same_findings(mixed: Path) -> None:
    def facts(source: Path, column: str | None = None) -> dict[str, object]:
        found = inspected(source, replace(READ, label_column=column)).to_json()
        for name in ("broken", "copies", "near_duplicates", "commands"):  # these name the source
            found[name] = len(found[name])
        return {name: value for name, value in found.items() if name not in ("source", "read_as")}

    folder = facts(mixed)
    assert (folder["broken"], folder["copies"], folder["near_duplicates"]) == (2, 1, 3)
    assert facts(zipped(mixed)) == folder
    assert facts(as_parquet(mixed), "label") == folder


def test_images_of_several_sizes_are_read_in_the_proposed_one(mixed: Path) -> None:
    seen = survey(str(mixed), ReadOptions())
    assert seen.options.height_and_width == (48, 48)
    assert seen.shape == (3, 48, 48)
    assert len(inspected(mixed, ReadOptions()).problems) == 1


def test_images_of_one_small_size_are_read_as_they_are(folder: Path) -> None:
    found = inspected(folder, ReadOptions())
    assert found.survey.options == ReadOptions()
    assert found.survey.shape == (3, 8, 8)
    assert found.problems == []


def test_arrays_are_inspected_and_latents_are_not(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 4), dtype=np.uint8)
    np.savez(tmp_path / "four.npz", images=pixels, labels=np.arange(12) % 3)
    found = inspected(tmp_path / "four.npz", ReadOptions())
    np.testing.assert_allclose(found.survey.histogram.means, (pixels / 127.5 - 1).mean((0, 1, 2)))
    assert found.labels == {"0": 4, "1": 4, "2": 4}
    np.save(tmp_path / "latents.npy", np.zeros((4, 4, 8, 8), np.float32))
    with pytest.raises(BadInput, match="holds latents"):
        survey(str(tmp_path / "latents.npy"), ReadOptions(latents=True))


def test_labels_that_a_run_would_refuse_are_a_problem(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\ncat/0.png,cat\n")
    found = inspected(mixed, replace(READ, labels=tmp_path / "labels.csv"))
    assert len(found.problems) == 1
    assert "has no label" in found.problems[0]
    assert found.labels == {"cat": 1}


def test_images_of_one_colour_are_a_problem(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / name)
    assert inspected(tmp_path, ReadOptions()).problems == [
        "all values are the same, so there is nothing to learn"
    ]


def test_rare_classes_are_named(mixed: Path) -> None:
    for number in range(11):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(mixed / "dog" / f"more{number}.png")
    for path in list((mixed / "cat").iterdir())[2:]:
        path.unlink()
    assert "cat" in inspected(mixed).imbalance()
    assert inspected("digits", ReadOptions()).imbalance() == ""


def test_a_set_of_nothing_but_broken_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"All 1 images of .* are broken"):
        survey(str(tmp_path), ReadOptions())


def test_a_zip_is_read_without_its_other_files(mixed: Path) -> None:
    with zipfile.ZipFile(zipped(mixed), "a") as archive:
        archive.writestr("notes.txt", "hello")
    assert inspected(mixed.with_suffix(".zip")).survey.expected == 16
