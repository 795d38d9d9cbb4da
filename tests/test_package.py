"""The package itself: its public names, and what importing it costs."""

import subprocess
import sys

import pytest

import multistage_diffusion as md

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
