import math
import re

import pytest

from multistage_diffusion.report.chart import Axis, Band, Chart, Line, Mark
from multistage_diffusion.report.numbers import duration, short


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(label="", low=0, high=200_000), [0, 50_000, 100_000, 150_000, 200_000]),
        (Axis(label="", low=0.01, high=100, log=True), [0.01, 0.1, 1, 10, 100]),
        (Axis(label="", low=0.09, high=1.1, log=True), [0.1, 0.2, 0.5, 1.0]),
        (Axis(label="", low=480, high=900, log=True), [600, 750, 900]),
    ],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)


def test_ratios_are_distances_on_a_logarithmic_axis() -> None:
    shares = Axis(label="", low=1, high=100, log=True).share([1, 10, 100, 0, -1])
    assert shares[:3] == pytest.approx([0, 0.5, 1])
    assert all(map(math.isnan, shares[3:]))


def chart(line: Line) -> str:
    x, y = Axis(label="x", low=0, high=10), Axis(label="y", low=0, high=1)
    bands, marks = [Band(low=0, high=5, look="a", label="<i>")], [Mark(y=math.nan, look="b")]
    return Chart(title="&", x=x, y=y, about='"', lines=[line], bands=bands, marks=marks).svg()


def test_a_line_goes_from_corner_to_corner_and_stops_where_nothing_is_known() -> None:
    svg = chart(Line(x=[0, 2, 4, 6, 10], y=[0, 0.5, math.nan, 0.5, 1], look="ink"))
    inner = re.search(r'<svg x="50" y="42" width="(\d+)" height="(\d+)">', svg)
    path = re.search(r'd="([^"]*)"', svg)
    assert inner
    assert path
    width, height = map(int, inner.groups())
    steps = re.findall(r"([ML])([\d.]+) ([\d.]+)", path[1])
    assert [pen for pen, _, _ in steps] == ["M", "L", "M", "L"]
    assert [float(value) for value in steps[0][1:]] == [0, height]
    assert [float(value) for value in steps[-1][1:]] == [width, 0]


def test_text_is_escaped_and_a_mark_without_a_value_is_left_out() -> None:
    svg = chart(Line(x=[1], y=[0.5], look="ink"))
    assert "&lt;i&gt;" in svg
    assert ">&amp;<" in svg
    assert 'aria-label="&quot;"' in svg
    assert "nan" not in svg
    assert svg.count("<circle") == 1  # a single point would not be seen as a line


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    count = 10_001
    svg = chart(
        Line(x=[k / 1000 for k in range(count)], y=[k / count for k in range(count)], look="")
    )
    assert 150 < svg.count("L") < 250
    assert "M0.0" in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00012, "0.00012"), (0.1 + 0.2, "0.3"), (999, "999"), (2.5e6, "2.5 M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.6, "10 seconds"), (246, "4.1 minutes"), (9000, "2.5 hours"), (864_000, "10.0 days")],
)
def test_times_have_their_natural_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
