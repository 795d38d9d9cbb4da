"""What ``multistage data inspect`` prints."""

import math
import statistics
from collections import Counter

from multistage_diffusion.cli.reading import first_lines
from multistage_diffusion.cli.terminal import print_line, print_table, print_warning
from multistage_diffusion.clustering import Clustering
from multistage_diffusion.data import ReadOptions
from multistage_diffusion.inspection import Findings
from multistage_diffusion.inspection.next_commands import reading_arguments
from multistage_diffusion.inspection.proposal import Size, enlarged
from multistage_diffusion.inspection.survey import Survey
from multistage_diffusion.schedule import VP

__all__ = ["print_findings", "print_proposal"]

MOST_ROWS = 8
MOST_CLASSES = 24
BAR = 30  # characters of the class with the most images
COMPARED = (32, 64, 128, 256)  # sides of squares
MADE = {"palette": "become RGB", "black and white": "become grey"}
GREY = ("grey", "16-bit grey", "black")
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}


def print_findings(found: Findings) -> None:
    """Prints what a data set holds: sizes, channels, labels, statistics and duplicates."""
    _print_images(found)
    _print_sizes(found.survey)
    _print_modes(found.survey)
    _print_labels(found)
    _print_statistics(found.survey)
    _print_duplicates(found)


def _print_images(found: Findings) -> None:
    seen = found.survey
    broken = f", and {len(seen.broken):,} that are broken" if seen.broken else ""
    print_line(f"{seen.name}: {len(seen.names):,} images{broken}")
    for note in seen.remarks():
        print_warning(f"{seen.name}: {note}")
    for line in first_lines(found.broken_lines()):
        print_line(f"  broken: {line}")


def _share(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / total:.1%}"


def _print_sizes(seen: Survey) -> None:
    """Prints the sizes and, if there are several, the effect of resizing to the usual squares."""
    print_line("")
    common = seen.sizes.most_common(MOST_ROWS)
    rows = [[f"{h}x{w}", *_share(count, len(seen.names))] for (h, w), count in common]
    print_table(["height x width", "images", "share"], rows)
    if len(seen.sizes) == 1:
        return
    if len(seen.sizes) > MOST_ROWS:
        print_line(f"and {len(seen.sizes) - MOST_ROWS:,} other sizes")
    _print_extremes(seen)
    _print_shapes(seen.sizes)
    print_line("")
    _print_compared(seen)


def _print_extremes(seen: Survey) -> None:
    """Prints the smallest and the largest image."""
    least, most = min(seen.sizes, key=math.prod), max(seen.sizes, key=math.prod)
    for word, (height, width) in (("smallest", least), ("largest", most)):
        print_line(f"{word}: {height}x{width}, {seen.examples[height, width]}")


def _print_shapes(sizes: Counter[Size]) -> None:
    """Prints the ratios of width to height."""
    ratios = [width / height for height, width in sizes.elements()]
    wide, high = sum(ratio > 1 for ratio in ratios), sum(ratio < 1 for ratio in ratios)
    print_line(
        f"width by height: {min(ratios):.2f} to {max(ratios):.2f}, median "
        f"{statistics.median(ratios):.2f}; "
        f"{wide:,} wide, {high:,} high, {len(ratios) - wide - high:,} square"
    )


def _print_compared(seen: Survey) -> None:
    """Prints how many images each of some sizes enlarges, and what it crops."""
    read = seen.options.height_and_width
    sizes = sorted({*((side, side) for side in COMPARED), *([read] if read else [])})
    headings = ["--size", "images it enlarges", "share", "area center-crop keeps", ""]
    rows = [[*_size_row(seen.sizes, size), "<- read so" if size == read else ""] for size in sizes]
    print_table(headings, rows, texts=[""])


def _size_row(sizes: Counter[Size], size: Size) -> list[str]:
    kept = [
        min(h / size[0], w / size[1]) ** 2 * size[0] * size[1] / (h * w)
        for h, w in sizes.elements()
    ]
    shown = str(size[0]) if size[0] == size[1] else f"{size[0]} {size[1]}"
    return [shown, *_share(enlarged(sizes, size), sizes.total()), f"{statistics.mean(kept):.0%}"]


def _print_modes(seen: Survey) -> None:
    """Prints how images are stored, and what reading changes."""
    print_line("")
    rows = [
        [mode, *_share(count, len(seen.names)), done or MADE.get(mode, "nothing")]
        for (mode, done), count in seen.modes.most_common()
    ]
    print_table(["stored as", "images", "share", "what is done"], rows, texts=["what is done"])
    if seen.shape[0] == 3 and any(mode.startswith(GREY) for mode, _ in seen.modes):
        print_line("grey images become RGB, as others are coloured")


def _print_labels(found: Findings) -> None:
    print_line("")
    if not found.labels:
        return print_line("no labels")
    print_table(["label", "images", ""], _label_rows(found.labels), texts=[""])
    if remark := found.imbalance():
        print_line(remark)


def _label_rows(labels: dict[str, int]) -> list[list[str]]:
    """The classes with bars; of many, the most and the least frequent."""
    most, left_out = max(labels.values()), len(labels) - MOST_CLASSES
    names = sorted(labels, key=lambda name: -labels[name]) if left_out > 0 else list(labels)
    half = MOST_CLASSES // 2
    shown = [*names[:half], *names[-half:]] if left_out > 0 else names
    rows = [[name, f"{labels[name]:,}", "█" * round(BAR * labels[name] / most)] for name in shown]
    if left_out > 0:
        rows.insert(half, [f"{left_out:,} between", "", ""])
    return rows


def _print_statistics(seen: Survey) -> None:
    """Prints mean and standard deviation of each channel."""
    channels, height, width = seen.shape
    given = " ".join(reading_arguments(seen.options))
    options = f" ({given})" if given else ""
    print_line("")
    print_line(f"read as {channels} x {height} x {width}{options}, values in -1..1:")
    names = CHANNELS.get(channels, tuple(f"channel {number}" for number in range(1, channels + 1)))
    values = zip(names, seen.histogram.means, seen.histogram.deviations, strict=True)
    rows = [[name, f"{mean:.4f}", f"{std:.4f}"] for name, mean, std in values]
    print_table(["channel", "mean", "standard deviation"], rows)
    sigma_data = f"{seen.histogram.sigma_data:.4f}"
    print_line(f"sigma_data: {sigma_data} (standard deviation over all channels)")


def _print_duplicates(found: Findings) -> None:
    extra = sum(len(group) - 1 for group in found.copies)
    mirrored = sum(pair.mirrored for pair in found.near)
    near = len(found.near) - mirrored
    print_line("")
    print_line(
        f"duplicates: {extra:,} with the pixels of another image, {near:,} nearly the same, "
        f"{mirrored:,} mirrored"
    )
    for line in first_lines(found.duplicate_lines()):
        print_line(f"  {line}")


def print_proposal(found: Findings, with_size: bool) -> None:
    """Prints the proposal for a data set, and the commands that come next.

    Args:
        found: the findings.
        with_size: whether the size is a proposal too, because none was given.
    """
    seen = found.survey
    size = [["size", _proposed_size(seen)]] if with_size else []
    print_line("")
    print_table(["proposed", ""], [*size, *_proposal_rows(found)], texts=[""])
    if not isinstance(found.stages, Clustering):
        print_line(f"No boundaries of their own: {found.stages}")
    if len(seen.part) < len(seen.names):
        print_line("A part has a first boundary that lies too high; cluster takes all images.")
    for remark in found.proposal.remarks:
        print_line(remark)
    print_line("")
    print_line("next:")
    for command in found.commands:
        print_line(command)


def _proposed_size(seen: Survey) -> str:
    option = " ".join(reading_arguments(ReadOptions(size=seen.options.size)))
    return option or f"as it is, {seen.shape[1]}x{seen.shape[2]}"


def _proposal_rows(found: Findings) -> list[list[str]]:
    """Preset, density, deviation and boundaries."""
    diffusion = found.proposal.preset.diffusion
    measured = f"{found.survey.histogram.sigma_data:.4f}, as measured"
    fixed = f"{diffusion.sigma_data}, the preset's"
    return [
        ["preset", found.proposal.name],
        ["density of levels", diffusion.schedule],
        ["sigma_data", measured if diffusion.sigma_data is None else fixed],
        ["boundaries of the preset", ", ".join(f"{b:.4g}" for b in diffusion.boundaries)],
        ["boundaries of these images", _boundaries(found)],
    ]


def _boundaries(found: Findings) -> str:
    stages = found.stages
    if not isinstance(stages, Clustering):
        return "none"
    parts = [
        f"{b:.4g} ({low:.4g} to {high:.4g})"
        for b, (low, high) in zip(stages.stages.boundaries, stages.ci95, strict=True)
    ]
    times = ", ".join(f"{float(VP().to_clock(b)):.3f}" for b in stages.stages.boundaries)
    part = f"{len(found.survey.part):,} of {len(found.survey.names):,} images"
    return f"{', '.join(parts)}; t = {times} (closed form, {stages.pairs} pairs, {part})"
