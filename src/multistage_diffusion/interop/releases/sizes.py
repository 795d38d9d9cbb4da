"""What a release's settings say about things that bases have in common."""

from collections.abc import Mapping
from typing import Any

from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.config import Pyramid
from multistage_diffusion.schedule import Schedule, ScheduleSettings

__all__ = ["check_supported", "pyramid", "schedule_settings"]


def check_supported(sizes: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
    """Raises BadInput for a setting of a release that changes what its networks compute.

    Args:
        sizes: the settings by the release's names; what is missing or None is as usual.
        supported: of some of them, the only value that can be read.
    """
    for name, value in supported.items():
        given = sizes.get(name)
        if given is not None and _lower(given) != _lower(value):
            raise BadInput(f"Networks with {name} {given!r} cannot be read, only with {value!r}.")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def pyramid(sizes: Mapping[str, Any], name: str, kinds: Mapping[str, Pyramid]) -> Pyramid:
    """Our name of a pyramid; the first kind where the release does not say.

    Raises:
        BadInput: if there is no such kind.
    """
    kind = _lower(sizes.get(name, next(iter(kinds))))
    if kind not in kinds:
        raise BadInput(f"There is no {name} {kind!r}; there are {', '.join(kinds)}.")
    return kinds[kind]


def schedule_settings(
    sizes: Mapping[str, Any], usual: Schedule, names: Mapping[str, str]
) -> ScheduleSettings:
    """What a release's schedule has in place of the usual parameters.

    Args:
        sizes: the settings by the release's names.
        usual: the schedule with the usual parameters.
        names: the release's names of parameters, with ours.
    """
    given = [(ours, float(sizes[name])) for name, ours in names.items() if name in sizes]
    return tuple((ours, value) for ours, value in given if value != getattr(usual, ours))
