"""The package itself: its public names, and what importing it costs."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import multistage_diffusion as md

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
in_the_source_tree = pytest.mark.skipif(
    not SOURCE.exists(), reason="the tests are not beside the sources"
)
HEAVY = ("torch", "matplotlib", "accelerate", "scipy", "sklearn", "datasets", "pandas", "PIL")
NOT_EVERYWHERE = ("resource", "fcntl", "termios", "pwd", "grp")


@pytest.mark.parametrize("name", md.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(md, name) is not None
    assert name in dir(md)


def test_a_renamed_name_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match="plan_run is now configure_run"):
        assert md.__getattr__("plan_run") is md.configure_run


def test_unknown_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        md.__getattr__("nothing")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_list_of_commands_needs_no_heavy_import() -> None:
    code = (
        "import contextlib, sys\n"
        "from multistage_diffusion.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('imported', *sorted(m for m in sys.modules if '.' not in m))"
    )
    lines = run_python(code).splitlines()
    assert any("train" in line for line in lines)
    assert not set(HEAVY) & set(lines[-1].split()[1:])


def test_every_module_imports_where_a_system_lacks_some_of_the_standard_library() -> None:
    """As on Windows and macOS: a module that needs one of these imports it where it is used."""
    pytest.importorskip("diffusers")  # which some of the modules are for
    code = (
        f"import builtins, importlib, pkgutil, sys\n"
        f"import numpy, torch, accelerate, datasets, matplotlib, PIL, scipy, pyarrow, tyro\n"
        f"real = builtins.__import__\n"
        f"def without(name, globals=None, *rest, **more):\n"
        f"    ours = (globals or {{}}).get('__name__', '').startswith('multistage_diffusion')\n"
        f"    if ours and name in {NOT_EVERYWHERE!r}: raise ImportError(name)\n"
        f"    return real(name, globals, *rest, **more)\n"
        f"builtins.__import__ = without\n"
        f"import multistage_diffusion as md\n"
        f"found = [m.name for m in pkgutil.walk_packages(md.__path__, 'multistage_diffusion.')]\n"
        f"for name in found:\n"
        f"    if not name.endswith('__main__'): importlib.import_module(name)\n"
        f"assert md.memory.free_memory() > 0\n"
        f"print(len(found))"
    )
    assert int(run_python(code)) > 100


@in_the_source_tree
def test_all_files_name_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changes = re.search(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation is not None
    assert changes is not None
    assert project["version"] == md.__version__ == citation[1] == changes[1]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The names of the files in the wheel and in the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (built,), (packed,) = out.glob("*.whl"), out.glob("*.gz")
    with zipfile.ZipFile(built) as wheel, tarfile.open(packed) as source:
        return set(wheel.namelist()), {name.partition("/")[2] for name in source.getnames()}


@in_the_source_tree
def test_the_wheel_has_all_files_of_the_package_and_its_notices(
    archives: tuple[set[str], set[str]],
) -> None:
    expected = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "multistage_diffusion").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"multistage_diffusion-{md.__version__}.dist-info"
    files = ("METADATA", "WHEEL", "RECORD", "entry_points.txt")
    notices = ("licenses/LICENSE", "licenses/NOTICE")
    assert archives[0] == expected | {f"{about}/{name}" for name in (*files, *notices)}


@in_the_source_tree
def test_the_source_distribution_has_what_building_and_testing_need(
    archives: tuple[set[str], set[str]],
) -> None:
    needed = {"pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE", "NOTICE"}
    folders = {"src", "tests", "docs", "examples", "benchmarks"}
    assert needed | {Path(__file__).relative_to(ROOT).as_posix()} <= archives[1]
    assert folders <= {name.partition("/")[0] for name in archives[1]}
    assert not {name for name in archives[1] if name.startswith((".venv", "runs", "dist"))}
