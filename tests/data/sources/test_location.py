from pathlib import Path

import pytest

from multistage_diffusion.data.sources.location import Location, expand_braces, locate
from multistage_diffusion.errors import BadInput


def test_braces_are_expanded() -> None:
    assert expand_braces("a{8..11}.tar") == ["a8.tar", "a9.tar", "a10.tar", "a11.tar"]
    assert expand_braces("{x,y}/{00..01}") == ["x/00", "x/01", "y/00", "y/01"]
    assert expand_braces("plain") == ["plain"]


def test_a_name_stands_for_a_path_the_files_of_a_pattern_or_nothing(tmp_path: Path) -> None:
    files = (tmp_path / "1.tar", tmp_path / "2.tar")
    for file in files:
        file.touch()
    assert locate(tmp_path).is_folder
    assert locate(files[0]).paths == files[:1]
    pattern = locate(f"{tmp_path}/*.tar")
    assert pattern.paths == files
    assert pattern.is_pattern
    assert pattern.are_files((".zip", ".tar"))
    assert not pattern.are_files((".zip",))
    assert locate("owner/name") == Location("owner/name")


def test_a_path_is_not_a_pattern_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "[1].tar").touch()
    assert locate(f"{tmp_path}/[1].tar").paths == (tmp_path / "[1].tar",)


def test_a_missing_file_of_a_pattern_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(BadInput, match=r"no file .*1\.tar, of 2"):
        locate(f"{tmp_path}/{{0..1}}.tar")


def test_numbers_in_braces_may_count_down() -> None:
    assert expand_braces("{5..3}") == ["5", "4", "3"]


@pytest.mark.parametrize("pattern", ["a**b", "***", "{}", "{,}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadInput, match="is not a pattern"):
        locate(pattern)


@pytest.mark.parametrize("pattern", ["{1..1000000000}.tar", "{a,b}" * 60, "{0..9}" * 30])
def test_braces_that_stand_for_too_many_files_are_refused_at_once(pattern: str) -> None:
    with pytest.raises(BadInput, match="more than 100,000 files"):
        locate(pattern)


def test_a_pattern_stands_for_no_hidden_files_unless_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "@eaDir").mkdir()
    for name in ("0.tar", "._0.tar", "@eaDir/0.tar"):
        (tmp_path / name).touch()
    assert locate(f"{tmp_path}/*.tar").paths == (tmp_path / "0.tar",)
    assert locate(f"{tmp_path}/**/*.tar").paths == (tmp_path / "0.tar",)
    assert locate(f"{tmp_path}/.*.tar").paths == (tmp_path / "._0.tar",)
    assert locate(f"{tmp_path}/@eaDir/*.tar").paths == (tmp_path / "@eaDir/0.tar",)


def test_a_link_to_nothing_is_no_reserved_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").symlink_to("gone")
    with pytest.raises(BadInput, match="digits is a link to nothing: gone does not exist"):
        locate("digits")
