"""Line charts as SVG text whose colours are those of the page, in light and dark mode.

Font sizes are meant for a phone: a chart is drawn for a width of 340 CSS pixels and scales with
its place on the page.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from multistage_diffusion.report.numbers import short

__all__ = ["Axis", "Band", "Chart", "Line", "Mark"]

LEFT, RIGHT, TOP, BOTTOM = 50, 12, 24, 40
NAMES = 18
"""Height of the line of names above bands."""
TICKS, FEWEST_TICKS = 4, 3
LOG_STEPS = (1,), (1, 2, 5)
"""Multiples of powers of ten that are marked on a logarithmic axis."""
MOST_POINTS = 200
"""Of a line: more would not be seen."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The values that a side of a chart spans."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, values: Sequence[float] | Array) -> Array:
        """Where values lie, 0 for the lower end and 1 for the upper one; NaN where they cannot."""
        found, low, high = np.asarray(values, float), self.low, self.high
        if self.log:
            found = np.log(np.where(found > 0, found, np.nan))
            low, high = math.log(low), math.log(high)
        return (found - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        for candidates in [*map(self._powers, LOG_STEPS)] if self.log else []:
            found = self._within(candidates)
            if len(found) >= FEWEST_TICKS:
                return found
        return self._within(MaxNLocator(TICKS).tick_values(self.low, self.high))

    def _within(self, values: Iterable[float]) -> list[float]:
        slack = 1e-9
        return [float(v) for v in values if -slack <= self.share([v])[0] <= 1 + slack]

    def _powers(self, factors: Sequence[int]) -> list[float]:
        """Multiples of powers of ten, not of all powers if these are many."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        step = max(1, (last - first) // TICKS)
        return [
            factor * 10.0**power for power in range(first, last + 1, step) for factor in factors
        ]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve."""

    x: Sequence[float]
    y: Sequence[float]
    """NaN where there is no value."""
    look: str
    """Classes of the style sheet: a colour, and faint, thin, dashed or dotted."""
    label: str = ""
    """Its name in the legend; empty for none."""
    points: bool = False
    """Whether its points are marked."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """An area between two values, from the bottom to the top, or between two curves."""

    low: float
    high: float
    look: str
    label: str = ""
    """Written above it."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A horizontal line at a value."""

    y: float
    look: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over one axis."""

    title: str
    x: Axis
    y: Axis
    about: str
    """What it shows, for those who do not see it."""
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = field(default=())
    width: int = 340
    height: int = 230

    def svg(self) -> str:
        """The chart as an ``<svg>`` element."""
        parts = [
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.about)}">',
            self._text(LEFT, 14, self.title, "title"),
            *map(self._named_band, self.bands),
            *self._ticks(),
            self._text(self._right, self.height - 6, self.x.label, "end"),
            self._inside(),
            "</svg>",
        ]
        return "".join(parts)

    @property
    def _right(self) -> int:
        return self.width - RIGHT

    @property
    def _wide(self) -> int:
        return self.width - LEFT - RIGHT

    @property
    def _high(self) -> int:
        return self.height - self._top - BOTTOM

    @property
    def _top(self) -> int:
        return TOP + NAMES * any(band.label for band in self.bands)

    def _inside(self) -> str:
        """What is drawn between the axes, cut off at them."""
        drawn = [*map(self._band, self.bands), *map(self._mark, self.marks)]
        drawn += map(self._line, self.lines)
        size = f'x="{LEFT}" y="{self._top}" width="{self._wide}" height="{self._high}"'
        return f"<svg {size}>{''.join(drawn)}</svg>"

    def _ticks(self) -> list[str]:
        base, parts = self._top + self._high, []
        for value in self.x.ticks():
            x = LEFT + self._wide * self.x.share([value])[0]
            parts.append(_rule(x, x, base, base + 4))
            parts.append(self._text(x, base + 17, short(value), "middle"))
        for value in self.y.ticks():
            y = base - self._high * self.y.share([value])[0]
            parts.append(_rule(LEFT, self._right, y, y))
            parts.append(self._text(LEFT - 6, y + 4, short(value), "end"))
        return parts

    def _band(self, band: Band) -> str:
        low, high = np.clip(self.x.share([band.low, band.high]), 0, 1) * self._wide
        size = f'x="{low:.1f}" width="{high - low:.1f}" height="{self._high}"'
        return f'<rect class="{band.look}" {size}/>'

    def _named_band(self, band: Band) -> str:
        if not band.label:
            return ""
        low, high = np.clip(self.x.share([band.low, band.high]), 0, 1)
        middle = LEFT + self._wide * (low + high) / 2
        return self._text(middle, self._top - 6, band.label, "middle")

    def _mark(self, mark: Mark) -> str:
        y = self._high * (1 - self.y.share([mark.y])[0])
        return _rule(0, self._wide, y, y, mark.look) if math.isfinite(y) else ""

    def _line(self, line: Line) -> str:
        chosen = _evenly(len(line.x))
        x = self._wide * self.x.share(np.asarray(line.x, float)[chosen])
        y = self._high * (1 - self.y.share(np.asarray(line.y, float)[chosen]))
        known = np.isfinite(x) & np.isfinite(y)
        dots = ""
        if line.points or known.sum() == 1:
            dots = "".join(
                f'<circle class="{line.look}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>'
                for a, b in zip(x[known], y[known], strict=True)
            )
        return f'<path class="line {line.look}" d="{_steps(x, y, known)}"/>{dots}'

    def _text(self, x: float, y: float, text: str, look: str) -> str:
        return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _evenly(count: int) -> NDArray[np.int64]:
    """Indices of points, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def _steps(x: Array, y: Array, known: NDArray[np.bool_]) -> str:
    """A path through the points, interrupted where there is no value."""
    words, pen = [], "M"
    for a, b, there in zip(x, y, known, strict=True):
        if there:
            words.append(f"{pen}{a:.1f} {b:.1f}")
        pen = "L" if there else "M"
    return "".join(words)


def _rule(x: float, x2: float, y: float, y2: float, look: str = "rule") -> str:
    return f'<line class="{look}" x1="{x:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y2:.1f}"/>'
