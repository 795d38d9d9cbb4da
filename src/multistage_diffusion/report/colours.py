"""The colours of reports and figures."""

__all__ = ["BACKGROUND", "BAND", "GRID", "INK", "LINE", "MUTED", "PANEL", "stage_colour"]

INK = "#111111"
"""Text, and curves that belong to no stage."""
MUTED = "#555555"
"""Notes."""
LINE = "#bbbbbb"
"""Rules of tables."""
GRID = "#999999"
"""Reference lines of figures."""
BAND = "#333333"
"""Intervals of boundaries, drawn transparent."""
BACKGROUND = "#ffffff"
PANEL = "#f5f5f3"
"""Background of code and settings."""

STAGES = ("#0b6e99", "#d9730d", "#6b4f9e", "#3f8f4f", "#b8405e", "#7a6a2b")


def stage_colour(stage: int) -> str:
    """The colour of a stage, counted from 0."""
    return STAGES[stage % len(STAGES)]
