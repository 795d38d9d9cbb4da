"""Configurations: bounds, groups, and what may change when a run is resumed."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from multistage_diffusion.config import (
    Settings,
    fixed_settings,
    from_json,
    grouped,
    read_config,
    replace_settings,
    setting,
    to_json,
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    rate: float = setting(0.5, above=0, at_most=1)
    rates: tuple[float, ...] = setting((), at_least=0)


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    length: int = setting(10, above=0, may_change=True)
    name: str = "a"
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate must be above 0 and at most 1, not 0.0"),
        ({"rate": 1.5}, "rate must be above 0 and at most 1, not 1.5"),
        ({"rate": math.nan}, "rate must be"),
        ({"length": 0}, "length must be positive, not 0"),
        ({"length": math.inf}, "length must be positive"),
        ({"rates": (1.0, -1.0)}, "rates must be zero or positive, not -1.0"),
        ({"rates": (0.0,) * 2000}, "rates has 2,000 values"),
        ({"length": 10**18}, "length must be positive and at most 1e.15, not 10"),
        ({"length": 10**400}, "not a number of 401 digits"),
    ],
)
def test_a_setting_out_of_its_bounds_is_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace_settings(Outer(), **settings)


def test_bounds_are_inclusive_where_they_say_so() -> None:
    assert replace_settings(Outer(), rate=1.0, rates=(0.0,)).inner == Inner(rate=1.0, rates=(0.0,))


def test_a_setting_is_replaced_in_its_group_and_others_stay() -> None:
    changed = replace_settings(Outer(length=3), rate=0.25, name="b")
    assert changed == Outer(length=3, name="b", inner=Inner(rate=0.25))
    with pytest.raises(TypeError, match="no setting nothing"):
        replace_settings(Outer(), nothing=1)


def test_settings_that_may_change_are_not_fixed() -> None:
    assert fixed_settings(Outer()) == {"name": "a", "inner": {"rate": 0.5, "rates": []}}


def test_settings_without_groups_find_theirs() -> None:
    flat = {"length": 3, "name": "b", "rate": 0.25}
    assert from_json(Outer, grouped(Outer, flat)) == replace_settings(Outer(), **flat)


def test_json_restores_a_configuration() -> None:
    config = replace_settings(Outer(), rates=(1.0, 2.0))
    assert from_json(Outer, to_json(config)) == config
    with pytest.raises(BadInput, match=r"Bad setting inner\.rate"):
        from_json(Outer, {"inner": {"rate": "fast"}})


def _names(config: object) -> list[str]:
    """The names of all settings, those of groups included."""
    names = []
    for name, value in vars(config).items():
        names += _names(value) if isinstance(value, Settings) else [name]
    return names


def test_the_names_of_training_settings_are_different_in_all_groups() -> None:
    """The command line shows them without the names of their groups."""
    names = _names(TrainingConfig())
    assert len(names) == len(set(names)) == 38


def test_json_has_the_types_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"length": 3, "name": "caf\udce9", "inner": {"rates": [1, 0.5]}}))
    found = read_config(Outer, path)
    assert found == Outer(length=3, name="caf?", inner=Inner(rates=(1.0, 0.5)))
    for value in ({"length": "3"}, {"length": 3.5}, {"length": True}, {"inner": {"rates": 1}}):
        path.write_text(json.dumps(value))
        with pytest.raises(BadInput, match=rf"{path} is invalid: (length|inner)"):
            read_config(Outer, path)
