"""What a network was trained to predict, from a scheduler of diffusers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import SCHEDULES, ScheduleSettings

__all__ = ["Prediction", "read_scheduler"]

DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
SCHEDULE_OF = {
    "linear": "ddpm-linear",
    "scaled_linear": "ddpm",
    "squaredcos_cap_v2": "ddpm-cosine",
}
PRECONDITIONING_OF = {"epsilon": "ddpm", "v_prediction": "ddpm-v"}
NUMBERS = {"beta_start": "beta_start", "beta_end": "beta_end", "steps": "num_train_timesteps"}


@dataclass(frozen=True)
class Prediction:
    """What a network predicts, at which noise levels."""

    schedule: str
    """The name of the schedule."""
    schedule_settings: ScheduleSettings
    """Its parameters, where they are not the usual ones."""
    preconditioning: str


def read_scheduler(scheduler: Mapping[str, Any]) -> Prediction:
    """What the networks that a scheduler is for predict.

    Args:
        scheduler: the configuration of a scheduler of diffusers.

    Raises:
        BadInput: if there is no such schedule or preconditioning here.
    """
    kind = scheduler.get("_class_name", "this scheduler")
    if "beta_schedule" not in scheduler and "beta_start" not in scheduler:
        raise BadInput(f"The scheduler {kind} is not supported: it has no betas.")
    settings = {**DEFAULTS, **scheduler}
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if settings[name]:
            raise _refused(name, settings)
    if settings["beta_schedule"] not in SCHEDULE_OF:
        raise _refused("beta_schedule", settings)
    if settings["prediction_type"] not in PRECONDITIONING_OF:
        raise _refused("prediction_type", settings)
    schedule = SCHEDULE_OF[settings["beta_schedule"]]
    preconditioning = PRECONDITIONING_OF[settings["prediction_type"]]
    return Prediction(schedule, _unusual(schedule, settings), preconditioning)


def _refused(name: str, settings: Mapping[str, Any]) -> BadInput:
    return BadInput(f"The scheduler's {name} {settings[name]} is not supported.")


def _unusual(schedule: str, settings: Mapping[str, Any]) -> ScheduleSettings:
    """The numbers that differ from those of the schedule; a cosine has no betas of its own."""
    usual: Any = SCHEDULES[schedule]
    names = ["steps"] if schedule == "ddpm-cosine" else list(NUMBERS)
    values = ((name, settings[NUMBERS[name]]) for name in names)
    return tuple(pair for pair in values if not math.isclose(getattr(usual, pair[0]), pair[1]))
