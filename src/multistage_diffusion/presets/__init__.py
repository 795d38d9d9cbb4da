"""Named settings to start from.

Every one of them can be overridden, in Python with ``dataclasses.replace``.
"""

from multistage_diffusion.presets.configure import (
    choose_stages,
    configure_run,
    preset_model,
    with_model,
)
from multistage_diffusion.presets.paper import PAPER
from multistage_diffusion.presets.preset import Preset
from multistage_diffusion.presets.small import SMALL

__all__ = [
    "ABOUT_PRESETS",
    "PRESETS",
    "Preset",
    "choose_stages",
    "configure_run",
    "preset_model",
    "with_model",
]

PRESETS: dict[str, Preset] = {name: preset for name, (_, preset) in {**SMALL, **PAPER}.items()}
"""The presets by name."""

ABOUT_PRESETS: dict[str, str] = {name: about for name, (about, _) in {**SMALL, **PAPER}.items()}
"""A line about each preset."""
