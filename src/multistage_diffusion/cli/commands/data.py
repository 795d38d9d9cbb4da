"""``multistage data inspect``: what is in a data set, and what to begin with."""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import tyro

from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.latents import print_latents
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import first_lines
from multistage_diffusion.cli.terminal import print_line, print_settings, print_table, print_warning
from multistage_diffusion.clustering import Clustering
from multistage_diffusion.config import to_json
from multistage_diffusion.data import ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection import Findings, InspectionFolder, conclude, survey
from multistage_diffusion.inspection.latents import (
    are_latents,
    inspect_latents,
    write_latent_inspection,
)
from multistage_diffusion.inspection.next_commands import name_of, reading_arguments
from multistage_diffusion.inspection.proposal import Size, enlarged
from multistage_diffusion.schedule import VP

__all__ = ["Inspect"]

MOST_ROWS = 8
MOST_CLASSES = 24
BAR = 30
COMPARED = (32, 64, 128, 256)  # squares
MADE = {"palette": "become RGB", "black and white": "become grey"}
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Look at every image of a data set: sizes, channels, labels, broken files, duplicates,
    statistics; and what to begin with.

    Broken images are named and the others looked at; the exit code is 2 then, as cluster and train
    refuse them, unless --skip-broken is given.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md. Or a
    folder of latents from multistage encode."""
    out: Path | None = None
    """Folder for contact-sheet.png, inspection.json and lists. Default: inspection-NAME, named
    after the data. An earlier inspection of the same data there is replaced."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        folder = InspectionFolder(self.out or Path(f"inspection-{name_of(self.data)}"))
        if self.dry_run:
            return print_settings({**to_json(self), "out": str(folder.path)})
        if are_latents(self.data):
            return self._latents(folder.path)
        folder.check(self.data)
        found = conclude(survey(self.data, self.reading, _progress))
        _print_findings(found)
        _write(folder, found)
        _print_proposal(found, not self.reading.size)
        if found.problems:
            raise BadInput("; ".join(found.problems) + ".")

    def _latents(self, out: Path) -> None:
        """Looks at a folder of latents instead."""
        found = inspect_latents(Path(self.data))
        print_latents(found.encoding, found.index)
        print_line(f"largest correlation of two channels: {found.correlation:.3f}")
        print_line(f"values beyond 5 standard deviations: at most {max(found.outside):.2%}")
        write_latent_inspection(Path(self.data), found, out)
        print_line(f"wrote {out}: contact-sheet.png (decoded), histograms.png, inspection.json")


def _progress(items: Iterable[Any], label: str, count: int) -> Iterable[Any]:
    return show_progress(items, label, count, lambda _: 1) if count else items


def _write(folder: InspectionFolder, found: Findings) -> None:
    replaced = folder.result.exists()
    folder.write(found)
    names = ", ".join(sorted(path.name for path in folder.path.iterdir()))
    verb = "replaced the earlier inspection in" if replaced else "wrote"
    print_line("")
    print_line(f"{verb} {folder.path}: {names}")


def _print_findings(found: Findings) -> None:
    seen = found.survey
    data = seen.name
    print_line(
        f"{data}: {len(seen.names):,} images"
        + (f", and {len(seen.broken):,} that are broken" if seen.broken else "")
    )
    for note in seen.remarks():
        print_warning(f"{data}: {note}")
    for line in first_lines(found.broken_lines()):
        print_line(f"  broken: {line}")
    _print_sizes(found)
    print_line("")
    total = len(seen.names)
    rows = [
        [mode, *_share(count, total), done or MADE.get(mode, "nothing")]
        for (mode, done), count in seen.modes.most_common()
    ]
    print_table(["stored as", "images", "share", "what is done"], rows, texts=["what is done"])
    if seen.shape[0] == 3 and any(
        mode.startswith(("grey", "16-bit grey", "black")) for mode, _ in seen.modes
    ):
        print_line("grey images become RGB, as others are coloured")
    _print_labels(found)
    _print_statistics(found)
    _print_duplicates(found)


def _share(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / total:.1%}"


def _print_sizes(found: Findings) -> None:
    seen = found.survey
    total = len(seen.names)
    print_line("")
    rows = [
        [f"{h}x{w}", *_share(count, total)] for (h, w), count in seen.sizes.most_common(MOST_ROWS)
    ]
    print_table(["height x width", "images", "share"], rows)
    if len(seen.sizes) == 1:
        return
    if len(seen.sizes) > MOST_ROWS:
        print_line(f"and {len(seen.sizes) - MOST_ROWS:,} other sizes")
    least, most = (pick(seen.sizes, key=lambda size: size[0] * size[1]) for pick in (min, max))
    for word, (height, width) in (("smallest", least), ("largest", most)):
        print_line(f"{word}: {height}x{width}, {seen.examples[height, width]}")
    ratios = [width / height for height, width in seen.sizes.elements()]
    wide, high = sum(ratio > 1 for ratio in ratios), sum(ratio < 1 for ratio in ratios)
    print_line(
        f"width by height: {min(ratios):.2f} to {max(ratios):.2f}, median "
        f"{statistics.median(ratios):.2f}; "
        f"{wide:,} wide, {high:,} high, {total - wide - high:,} square"
    )
    print_line("")
    read = seen.options.height_and_width
    sizes = sorted({*((side, side) for side in COMPARED), *([read] if read else [])})
    headings = ["--size", "images it enlarges", "share", "area center-crop keeps", ""]
    print_table(
        headings,
        [[*_size_row(seen.sizes, size), "<- read so" if size == read else ""] for size in sizes],
        texts=[""],
    )


def _size_row(sizes: Counter[Size], size: Size) -> list[str]:
    kept = [
        min(h / size[0], w / size[1]) ** 2 * size[0] * size[1] / (h * w)
        for h, w in sizes.elements()
    ]
    shown = str(size[0]) if size[0] == size[1] else f"{size[0]} {size[1]}"
    return [shown, *_share(enlarged(sizes, size), sizes.total()), f"{statistics.mean(kept):.0%}"]


def _print_labels(found: Findings) -> None:
    print_line("")
    if not found.labels:
        return print_line("no labels")
    names = (
        sorted(found.labels, key=lambda name: -found.labels[name])
        if len(found.labels) > MOST_CLASSES
        else list(found.labels)
    )
    left_out = len(names) - MOST_CLASSES
    shown = [*names[: MOST_CLASSES // 2], *names[-MOST_CLASSES // 2 :]] if left_out > 0 else names
    most = max(found.labels.values())
    rows = [
        [name, f"{found.labels[name]:,}", "█" * round(BAR * found.labels[name] / most)]
        for name in shown
    ]
    if left_out > 0:
        rows.insert(MOST_CLASSES // 2, [f"{left_out:,} between", "", ""])
    print_table(["label", "images", ""], rows, texts=[""])
    if remark := found.imbalance():
        print_line(remark)


def _print_statistics(found: Findings) -> None:
    seen = found.survey
    arguments = reading_arguments(seen.options)
    channels, height, width = seen.shape
    print_line("")
    print_line(
        f"read as {channels} x {height} x {width}"
        + (f" ({' '.join(arguments)})" if arguments else "")
        + ", values in -1..1:"
    )
    names = CHANNELS.get(channels, tuple(f"channel {number}" for number in range(1, channels + 1)))
    values = zip(names, seen.histogram.means, seen.histogram.deviations, strict=True)
    print_table(
        ["channel", "mean", "standard deviation"],
        [[name, f"{mean:.4f}", f"{std:.4f}"] for name, mean, std in values],
    )
    print_line(
        f"sigma_data: {seen.histogram.sigma_data:.4f} (standard deviation over all channels)"
    )


def _print_duplicates(found: Findings) -> None:
    extra, mirrored = (
        sum(len(group) - 1 for group in found.copies),
        sum(pair.mirrored for pair in found.near),
    )
    near = len(found.near) - mirrored
    print_line("")
    print_line(
        f"duplicates: {extra:,} with the pixels of another image, {near:,} nearly the same, "
        f"{mirrored:,} mirrored"
    )
    for line in first_lines(found.duplicate_lines()):
        print_line(f"  {line}")


def _print_proposal(found: Findings, without_size: bool) -> None:
    proposal, seen = found.proposal, found.survey
    preset = proposal.preset
    own = preset.diffusion.sigma_data is None
    rows = [["preset", proposal.name], ["density of levels", preset.diffusion.schedule]]
    if without_size:
        size = " ".join(reading_arguments(ReadOptions(size=seen.options.size)))
        rows.insert(0, ["size", size or f"as it is, {seen.shape[1]}x{seen.shape[2]}"])
    rows.append(
        [
            "sigma_data",
            f"{seen.histogram.sigma_data:.4f}, as measured"
            if own
            else f"{preset.diffusion.sigma_data}, the preset's",
        ]
    )
    rows.append(
        [
            "boundaries of the preset",
            ", ".join(f"{boundary:.4g}" for boundary in preset.diffusion.boundaries),
        ]
    )
    rows.append(["boundaries of these images", _boundaries(found)])
    print_line("")
    print_table(["proposed", ""], rows, texts=[""])
    if not isinstance(found.stages, Clustering):
        print_line(f"No boundaries of their own: {found.stages}")
    if len(seen.part) < len(seen.names):
        print_line("A part has a first boundary that lies too high; cluster takes all images.")
    for remark in proposal.remarks:
        print_line(remark)
    print_line("")
    print_line("next:")
    for command in found.commands:
        print_line(command)


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


COMMAND = subcommands(
    {"inspect": Inspect(data=tyro.MISSING)},
    {"inspect": cleandoc(Inspect.__doc__ or "")},
    "Look at a data set.",
)
