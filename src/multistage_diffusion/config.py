"""Configurations as JSON and back."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from multistage_diffusion.errors import BadInput

__all__ = ["Config", "from_json", "to_json"]


Config = TypeVar("Config")


def to_json(config: object) -> dict[str, Any]:
    """A configuration as an object that ``json`` can write."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def from_json(kind: type[Config], value: object) -> Config:
    """A configuration from parsed JSON.

    Raises:
        BadInput: if a setting is missing, unknown in type or out of its choices; names the first one.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise BadInput(f"Bad setting {where}: {first['msg']}.") from error
