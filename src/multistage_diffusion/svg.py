"""Figures of matplotlib as SVG text."""

from io import StringIO

from matplotlib.figure import Figure

__all__ = ["svg_text"]


def svg_text(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, the same text each time."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
