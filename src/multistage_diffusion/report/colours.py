"""The colours of reports and figures, in light and dark mode."""

__all__ = [
    "BACKGROUND",
    "BAND",
    "DARK",
    "GRID",
    "INK",
    "LIGHT",
    "RUNS",
    "STAGES",
    "run_look",
    "stage_colour",
    "stage_look",
]

INK = "#111111"
"""Text, and curves that belong to no stage."""
GRID = "#999999"
"""Reference lines of figures."""
BAND = "#333333"
"""Intervals of boundaries, drawn transparent."""
BACKGROUND = "#ffffff"

STAGES = ("#0b6e99", "#d9730d", "#6b4f9e", "#3f8f4f", "#b8405e", "#7a6a2b")
DARK_STAGES = ("#5cb8e4", "#f0a04b", "#b39ae6", "#7fca8d", "#f08ba4", "#d0bd6f")
RUNS = 6
"""Colours of runs and arms that are compared; after them they repeat."""
DARK_RUNS = ("#b9bcc0", *DARK_STAGES[:5])
LIGHT_RUNS = ("#5b5f66", *STAGES[:5])

LIGHT = {
    "ink": INK,
    "muted": "#595959",
    "line": "#d4d4d0",
    "background": BACKGROUND,
    "panel": "#f5f5f2",
    "accent": STAGES[0],
    **{f"stage-{k + 1}": colour for k, colour in enumerate(STAGES)},
    **{f"run-{k + 1}": colour for k, colour in enumerate(LIGHT_RUNS)},
}
"""The page's colours by name."""
DARK = {
    "ink": "#ececea",
    "muted": "#a9adb3",
    "line": "#3a3d42",
    "background": "#15171a",
    "panel": "#1f2226",
    "accent": DARK_STAGES[0],
    **{f"stage-{k + 1}": colour for k, colour in enumerate(DARK_STAGES)},
    **{f"run-{k + 1}": colour for k, colour in enumerate(DARK_RUNS)},
}


def stage_colour(stage: int) -> str:
    """The colour of a stage, counted from 0."""
    return STAGES[stage % len(STAGES)]


def stage_look(stage: int) -> str:
    """The class of the style sheet that has the colour of a stage, counted from 0."""
    return f"stage-{stage % len(STAGES) + 1}"


def run_look(run: int) -> str:
    """The class of the style sheet that has the colour of a run or arm, counted from 0."""
    return f"run-{run % RUNS + 1}"
