import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.report import render
from multistage_diffusion.report.denoising_path import denoising_path
from multistage_diffusion.report.headline import of_run
from multistage_diffusion.run import Run
from multistage_diffusion.training import train
from multistage_diffusion.training.monitoring.records import read_records
from tests.conftest import MODEL, TINY, run_on


@pytest.fixture
def run(tmp_path: Path, trained_run: Path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run")


class Tags(HTMLParser):
    """Checks that tags are balanced and collects what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)
        self.loads += [
            value or ""
            for name, value in attrs
            if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if self.open and tag == self.open[-1]:
            self.open.pop()


@pytest.mark.parametrize("kind", ["run", "runs", "study"])
def test_the_page_is_whole_and_needs_nothing_else(pages: dict[str, str], kind: str) -> None:
    page = pages[kind]
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(load.startswith("data:") for load in tags.loads)
    assert len(page) < 5_000_000


def test_the_page_shows_losses_over_three_kinds_of_cost(pages: dict[str, str]) -> None:
    page = pages["run"]
    assert page.count('<svg class="chart"') == 3 * 3 + 1
    assert page.count('type="radio"') == 3
    assert "24 of 24 training images" in page


def test_the_page_shows_the_costs_and_the_configuration(pages: dict[str, str]) -> None:
    page = pages["run"]
    assert "decoder_widths" in page
    assert page.count("<tr>") >= 5


def test_a_run_without_records_or_stages_is_reported_as_such(run: Path) -> None:
    for name in ("stats.jsonl", "stages.json", "samples.png"):
        (run / name).unlink()
    page = render([run])
    assert "No records yet" in page
    assert "No curves" in page
    assert "multistage sample" in page


def test_several_runs_are_compared(pages: dict[str, str]) -> None:
    page = pages["runs"]
    assert "2 runs compared by Frechet distance (pixels): other 3.25, run &lt;b" in headline(page)
    differing = page[page.index('<h2 id="differences"') :].split("</table>")[0]
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td>', differing)
    assert rows == [("training.learning_rate", "0.01", "0.5")]


def test_names_are_escaped(pages: dict[str, str]) -> None:
    for page in pages.values():
        assert "<b>" not in page
        assert "run &lt;b&gt; &amp; &#34;quoted&#34;" in page


def test_the_headline_says_what_was_reached(pages: dict[str, str], trained_run: Path) -> None:
    said = headline(pages["run"])
    assert said.startswith("A network of 3 stages saw 24 images of digits in")
    assert said.endswith("reached a Frechet distance (pixels) of 4.5.")
    last = read_records(Run(trained_run))[-1]
    shares = [p / z for p, z in zip(last.probe_loss, last.zero_loss, strict=True)]
    shown = " / ".join(f"{share:.0%}" for share in shares)
    assert f"reached {shown} of an untrained network's loss" in of_run(TINY, "digits", last, [])
    assert "images of cifar10/train.parquet in" in of_run(
        TINY, "/d/cifar10/train.parquet", last, []
    )


def headline(page: str) -> str:
    return page.split("<h1>")[1].split("</h1>")[0]


def test_the_path_of_a_sample_goes_through_all_stages(trained_run: Path) -> None:
    steps = denoising_path(Run(trained_run), MODEL, [1, 1, 1]).steps
    levels = [step.sigma for step in steps]
    assert levels == sorted(levels, reverse=True)
    assert all((step.stage == 3) == (step.sigma >= 2.5) for step in steps)
    assert all((step.stage == 1) == (step.sigma < 0.3) for step in steps)
    assert {step.stage for step in steps} == {1, 2, 3}


def test_a_path_that_cannot_be_drawn_is_left_out_with_the_reason(tmp_path: Path) -> None:
    dear = denoising_path(Run(tmp_path), MODEL, [10**12] * 3)
    missing = denoising_path(Run(tmp_path), MODEL, [1, 1, 1])
    assert (dear.steps, missing.steps) == ((), ())
    assert "12,000 G multiply-accumulates" in dear.problem
    assert "holds no model" in missing.problem


def test_a_study_is_read_without_its_runs(
    pages: dict[str, str], finished_study: Path, tmp_path: Path
) -> None:
    said = headline(pages["study"])
    assert "staged reaches the final Frechet distance (pixels) of unified with 0.50" in said
    assert "(95 % interval 0.50 to 0.50, 2 seeds)" in said
    assert pages["study"].count("<img") == 1
    with pytest.raises(BadInput, match="name it alone"):
        render([finished_study, finished_study])
    shutil.copy(finished_study / "study.json", tmp_path)
    with pytest.raises(BadInput, match="without results"):
        render([tmp_path])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no run"):
        render([tmp_path])


def test_a_run_in_progress_can_be_looked_at(few_digits: Images, tmp_path: Path) -> None:
    """After each record, with a line being written behind the last one."""
    for number, record in enumerate(
        train(run_on(few_digits, held_out=0.2), few_digits, tmp_path / "run"), 1
    ):
        with (tmp_path / "run" / "stats.jsonl").open("a") as file:
            file.write('{"images": 1')
        page = render([tmp_path / "run"])
        assert f"{record.images} of 24 training images" in page
        assert ("averaged weights, held out" in page) or number == 1
        lines = (tmp_path / "run" / "stats.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "run" / "stats.jsonl").write_text(
            "".join(line for line in lines if line.endswith("\n"))
        )


def test_skipped_steps_are_reported(few_digits: Images, tmp_path: Path) -> None:
    values = few_digits.pixels[:].float() / 127.5 - 1
    values[7] = torch.nan
    bad = Images(values)
    records = list(train(run_on(bad, images=80), bad, tmp_path / "run"))
    skipped = sum(record.skipped for record in records)
    assert skipped
    assert f"{skipped} steps were left out since loss or gradient were not finite." in render(
        [tmp_path / "run"]
    )
