"""Study files."""

from pathlib import Path

import pytest

from multistage_diffusion.errors import BadInput
from multistage_diffusion.study import read_study
from multistage_diffusion.study.config import Options, as_arguments

STUDY = """
preset = "digits"
data = "digits"
reference = "one"
images = 100
[train]
batch-size = 8
[arms.one]
train.decoder-widths = [8]
[arms.other-one]
train.flip = false
init = { arm = "one", images = 50 }
[sizes.tiny]
images = 10
arms.other-one.train.flip = true
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_size_replaces_settings_and_keeps_the_others(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", STUDY)
    whole, tiny = read_study(file), read_study(file, "tiny")
    assert (whole.name, whole.images, tiny.images) == ("mine", 100, 10)
    assert whole.arms["other-one"].train == {"flip": False}
    assert tiny.arms["other-one"].train == {"flip": True}
    assert tiny.train == whole.train == {"batch_size": 8}


def test_a_study_extends_another(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", STUDY)
    more = 'extends = "base.toml"\nimages = 7\n[arms.third]\nabout = "new"\n'
    study = read_study(write(tmp_path / "more.toml", more), None)
    assert (study.name, study.images, list(study.arms)) == (
        "more",
        7,
        ["one", "other-one", "third"],
    )


def test_options_become_arguments() -> None:
    options: Options = {"decoder_widths": [8, 4], "flip": False, "compile": True, "seed": 1}
    expected = ["--decoder-widths", "8", "4", "--no-flip", "--compile", "--seed", "1"]
    assert as_arguments(options) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("images = 100", "images = ["), "is not a TOML file"),
        (("images = 100", "imagse = 100"), "unknown setting: imagse"),
        (("images = 100", ""), "images must be positive"),
        (('reference = "one"', 'reference = "two"'), "no arm 'two'"),
        (('arm = "one"', 'arm = "none"'), "no arm 'none'"),
        (('preset = "digits"', ""), "Bad setting preset"),
        (("images = 100", 'images = 100\nextends = "gone.toml"'), "which is no other file"),
        (("images = 100", "images = 100\nseeds = [-1.5]"), "Bad setting seeds"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = write(tmp_path / "study.toml", STUDY.replace(*change, 1))
    with pytest.raises(BadInput, match=message):
        read_study(file)


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no size 'huge'; its sizes: tiny"):
        read_study(write(tmp_path / "study.toml", STUDY), "huge")
