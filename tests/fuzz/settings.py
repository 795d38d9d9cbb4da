"""All settings of the commands that are numbers."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import tyro

__all__ = ["VALUES", "Setting", "numbers"]

VALUES = {
    int: ("-1", "0", "1000000000000000000", "1" + "0" * 30, "1" + "0" * 400),
    float: ("-1", "0", "nan", "inf", "-inf", "1e-300", "1e300", "1e18"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting that is a number, or several."""

    name: str
    kind: type
    count: int
    """Of its values."""
    bounded: bool

    @property
    def option(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"


def numbers(command: Any) -> Iterator[Setting]:
    """The settings of a command that are numbers."""
    metadata = {entry.name: entry.metadata for entry in dataclasses.fields(command)}
    for name, hint in get_type_hints(command, include_extras=True).items():
        if tyro.conf.Suppress in get_args(hint):
            continue
        bare = get_args(hint)[0] if get_origin(hint) is typing.Annotated else hint
        if dataclasses.is_dataclass(bare):
            yield from numbers(bare)
        elif found := _number(bare):
            yield Setting(name, *found, "bounds" in metadata[name])


def _number(hint: Any) -> tuple[type, int] | None:
    if hint in VALUES:
        return hint, 1
    options = get_args(hint)
    if get_origin(hint) is tuple and _number(options[0]):
        return options[0], 2 if options[-1] is Ellipsis else len(options)
    if get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for option in options if (found := _number(option))), None)
    return None
