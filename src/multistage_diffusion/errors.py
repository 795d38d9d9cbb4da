"""Errors that end a command with one line and exit code 2."""

__all__ = ["BadInput", "Diverged", "NoStages"]


class BadInput(ValueError):
    """Errors the user can fix. The message is one sentence: what is wrong, where, what to do."""


class NoStages(BadInput):
    """A data set that has no stages under the settings that were asked for."""


class Diverged(RuntimeError):
    """Loss or gradient are not finite in many training steps in a row."""
