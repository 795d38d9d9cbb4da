"""Configurations: frozen dataclasses whose fields carry their bounds, as JSON and back.

A configuration is a frozen dataclass of settings and of groups of settings, which are such
dataclasses again. The names of all settings in it are different, so that the command line can
show them flat. A field's docstring is its help; ``setting`` adds its bounds and whether it may
change when a run is resumed.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json

__all__ = [
    "Settings",
    "changed",
    "fixed_settings",
    "from_json",
    "grouped",
    "read_config",
    "replace_settings",
    "setting",
    "to_json",
]

Config = TypeVar("Config")


LARGEST = 10**15
"""Upper limit of settings without a lower one of their own; float64 and int64 hold it exactly."""
ADAPTERS = dict[type[Any], TypeAdapter[Any]]()
MOST_DIGITS = 40
MOST_SHOWN = 300  # characters of a message about a file
MOST_NUMBERS = 1000  # of a setting that is a list


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The values that a setting may have. Each number of a tuple must lie within them."""

    above: float = -math.inf
    at_least: float = -math.inf
    below: float = math.inf
    at_most: float = LARGEST

    def holds(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        inside = self.at_least <= value <= self.at_most and self.above < value < self.below
        return inside and value >= -LARGEST

    def __str__(self) -> str:
        """The bounds in words, after "must be"."""
        if self == Bounds(above=0):
            return "positive"
        if self == Bounds(at_least=0):
            return "zero or positive"
        words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
        limits = ((text, getattr(self, name)) for name, text in words.items())
        shown = (f"{text} {limit:.15g}" for text, limit in limits if abs(limit) < LARGEST)
        return " and ".join(shown)


def setting(default: Any, *, may_change: bool = False, **bounds: float) -> Any:
    """A field of a configuration.

    Args:
        default: its default.
        may_change: whether a resumed run may have another value than before.
        bounds: ``above``, ``at_least``, ``below`` or ``at_most`` some number.
    """
    return field(default=default, metadata={"bounds": Bounds(**bounds), "may_change": may_change})


class Settings:
    """Base of dataclasses whose fields have bounds.

    Raises:
        BadInput: if a setting is out of its bounds.
    """

    def __post_init__(self) -> None:
        for entry in _fields(self):
            if bounds := entry.metadata.get("bounds"):
                _check(entry.name, getattr(self, entry.name), bounds)


def _check(name: str, value: Any, bounds: Bounds) -> None:
    if isinstance(value, tuple):
        if len(value) > MOST_NUMBERS:
            raise BadInput(
                f"The setting {name} has {len(value):,} values; give at most {MOST_NUMBERS:,}."
            )
        for number in value:
            _check(name, number, bounds)
    elif isinstance(value, int | float) and not bounds.holds(value):
        raise BadInput(f"The setting {name} must be {_words(value, bounds)}.")


def _words(value: float, bounds: Bounds) -> str:
    """The bounds that a number is not within, and the number."""
    limits = [str(bounds)]
    if abs(value) > LARGEST and bounds.at_most == LARGEST:
        limits.append(f"at most {LARGEST:g}")
    number = f"{value}"
    if len(number) > MOST_DIGITS:
        number = f"a number of {len(number)} digits"
    return f"{' and '.join(filter(None, limits)) or 'a number'}, not {number}"


def _fields(config: object) -> tuple[Field[Any], ...]:
    assert is_dataclass(config)
    return fields(config)


def _groups(config: object) -> Iterator[tuple[str, Any]]:
    """The groups of settings of a configuration by name."""
    values = ((entry.name, getattr(config, entry.name)) for entry in _fields(config))
    return ((name, value) for name, value in values if is_dataclass(value))


def replace_settings(config: Config, **settings: object) -> Config:
    """A configuration with other values of some settings, in whichever group they are.

    Raises:
        TypeError: if there is no setting of a name.
    """
    own = {entry.name for entry in _fields(config)} & settings.keys()
    changed = {name: settings.pop(name) for name in own}
    for name, group in _groups(config):
        inside = {key: settings.pop(key) for key in _names(group) & settings.keys()}
        changed |= {name: replace_settings(group, **inside)} if inside else {}
    if settings:
        raise TypeError(f"{type(config).__name__} has no setting {', '.join(settings)}.")
    return replace(config, **changed)  # type: ignore[type-var]


def _names(config: object) -> set[str]:
    """The names of all settings, those of groups included."""
    inner = (_names(group) for _, group in _groups(config))
    return {entry.name for entry in _fields(config)}.union(*inner)


def fixed_settings(config: object) -> dict[str, Any]:
    """The settings that must stay the same when a run is resumed, as nested JSON."""
    kept = (entry for entry in _fields(config) if not entry.metadata.get("may_change"))
    values = {entry.name: getattr(config, entry.name) for entry in kept}
    json = to_json(config)
    return {
        name: fixed_settings(value) if is_dataclass(value) else json.get(name)
        for name, value in values.items()
        if name in json  # settings that do not apply are left out
    }


def grouped(kind: type[object], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without groups, as earlier versions wrote them, in the groups of ``kind``."""
    types = get_type_hints(kind)
    groups = {name: type_ for name, type_ in types.items() if is_dataclass(type_)}
    nested = {
        name: {entry.name: flat[entry.name] for entry in fields(group) if entry.name in flat}
        for name, group in groups.items()
    }
    moved = {key for group in nested.values() for key in group}
    return {**{key: value for key, value in flat.items() if key not in moved}, **nested}


def changed(settings: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, as nested JSON, that differ from others of the same kind."""
    different = {name: value for name, value in settings.items() if value != usual[name]}
    return {
        name: changed(value, usual[name]) if isinstance(value, dict) else value
        for name, value in different.items()
    }


def to_json(config: object) -> dict[str, Any]:
    """A configuration as an object that ``json`` can write."""
    result: dict[str, Any] = _adapter(type(config)).dump_python(config, mode="json")
    return result


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The adapter that checks JSON for a class; it is cached, since making one takes long."""
    if kind not in ADAPTERS:
        ADAPTERS[kind] = TypeAdapter(kind)
    return ADAPTERS[kind]


def from_json(kind: type[Config], value: object, where: str = "") -> Config:
    """A configuration from parsed JSON.

    Args:
        kind: its class.
        value: the JSON.
        where: the file, for messages.

    Raises:
        BadInput: if a setting is missing, of another type or out of its bounds; names the first.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")
        config: Config = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        problem = first["msg"].removeprefix("Value error, ").removesuffix(".")
        prefix = f"{where} is invalid: " if where else "Bad setting "
        raise BadInput(f"{prefix}{field[:MOST_SHOWN]}: {problem[:MOST_SHOWN]}.") from error
    return config


def read_config(kind: type[Config], path: Path) -> Config:
    """A configuration from a JSON file.

    Raises:
        BadInput: if the file cannot be read or holds something else; names the file and the field.
    """
    return from_json(kind, read_json(path), str(path))
