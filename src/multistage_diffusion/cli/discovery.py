"""The commands, found as the files of the package ``commands``.

A command is a module whose name is its name. It holds ``COMMAND``, a dataclass with the method
``run``, or a union of such classes made by ``subcommands``. Its help is the docstring of the
class, which is read without importing the module: importing torch takes seconds.
"""

import ast
from collections.abc import Mapping
from dataclasses import make_dataclass
from functools import cache
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

__all__ = ["command_names", "command_type", "overview", "subcommands"]

COMMANDS = Path(__file__).parent / "commands"


@cache
def command_names() -> tuple[str, ...]:
    """The names of all commands, in alphabetical order."""
    return tuple(sorted(file.stem for file in COMMANDS.glob("[!_]*.py")))


def command_type(name: str) -> Any:
    """What tyro parses for a command."""
    return import_module(f"multistage_diffusion.cli.commands.{name}").COMMAND


def overview() -> Any:
    """All commands without their settings, for the list of commands in the help."""
    placeholders = tuple(_placeholder(name) for name in command_names())
    return Union[placeholders]  # noqa: UP007  (of a tuple)


def _placeholder(name: str) -> Any:
    """A command without settings."""
    about = tyro.conf.subcommand(name, description=_summary(name), prefix_name=False)
    return Annotated[make_dataclass(name, []), about]


def _summary(name: str) -> str:
    """The first paragraph of the docstring of a command's class."""
    tree = ast.parse((COMMANDS / f"{name}.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and _runs(node)]
    text = ast.get_docstring(classes[0]) if classes else None
    return (text or "").split("\n\n")[0]


def _runs(node: ast.ClassDef) -> bool:
    """Whether a class has the method ``run``."""
    methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
    return any(method.name == "run" for method in methods)


def subcommands(defaults: Mapping[str, object], about: Mapping[str, str], help_text: str) -> Any:
    """A command with subcommands, such as one for each preset.

    Args:
        defaults: the settings that each subcommand begins with.
        about: a line about each.
        help_text: about the command.
    """
    union = tyro.extras.subcommand_type_from_defaults(defaults, about, prefix_names=False)
    return Annotated[union, tyro.conf.arg(help=cleandoc(help_text))]
