import json
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
from multistage_diffusion.run import Run
from multistage_diffusion.training import train
from tests.conftest import run_on


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
        if tag not in ("meta", "img", "br", "path", "use", "rect", "link"):
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


def test_the_page_is_whole_and_needs_nothing_else(run: Path) -> None:
    page = render([run])
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(load.startswith("data:") for load in tags.loads)
    assert len(re.findall('<svg class="chart"', page)) == 3 * 3 + 1
    assert "24 of 24 training images" in page


def test_the_page_shows_the_costs_and_the_configuration(run: Path) -> None:
    page = render([run])
    assert "decoder_widths" in page
    assert page.count("<tr>") >= 5


def test_a_run_without_records_or_stages_is_reported_as_such(run: Path) -> None:
    for name in ("stats.jsonl", "stages.json", "samples.png"):
        (run / name).unlink()
    page = render([run])
    assert "No records yet" in page
    assert "No curves" in page
    assert "multistage sample" in page


def test_several_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["training"]["learning_rate"] = 0.5
    (other / "config.json").write_text(json.dumps(config))
    results = (other / "evaluations.json").read_text()
    (other / "evaluations.json").write_text(results.replace("4.5", "3.25"))
    page = render([run, other])
    assert "2 runs compared by Frechet distance (pixels): other 3.25, run 4.5." in page
    differing = page[page.index('id="differences"') :].split("</table>")[0]
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td>', differing)
    assert rows == [("training.learning_rate", "0.01", "0.5")]


def test_names_are_escaped(trained_run: Path) -> None:
    page = render([trained_run])
    assert "<b>" not in page
    assert page.count("run &lt;b&gt; &amp; &#34;quoted&#34;") >= 2


def test_the_headline_says_what_was_reached(run: Path) -> None:
    start = "A network of 3 stages saw 24 images of digits in"
    assert headline(render([run])).startswith(start)
    assert headline(render([run])).endswith("reached a Frechet distance (pixels) of 4.5.")
    (run / "evaluations.json").unlink()
    last = json.loads((run / "stats.jsonl").read_text().splitlines()[-1])
    shares = [p / z for p, z in zip(last["probe_loss"], last["zero_loss"], strict=True)]
    shown = " / ".join(f"{share:.0%}" for share in shares)
    assert f"reached {shown} of an untrained network" in headline(render([run]))


def headline(page: str) -> str:
    return page.split("<h1>")[1].split("</h1>")[0]


def test_the_path_of_a_sample_goes_through_all_stages(run: Path) -> None:
    steps = denoising_path(Run(run)).steps
    levels = [step.sigma for step in steps]
    assert levels == sorted(levels, reverse=True)
    assert all((step.stage == 3) == (step.sigma >= 2.5) for step in steps)
    assert all((step.stage == 1) == (step.sigma < 0.3) for step in steps)
    assert {step.stage for step in steps} == {1, 2, 3}


def test_a_path_that_cannot_be_drawn_is_left_out_with_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multistage_diffusion.report.denoising_path.MOST_MACS", 1)
    assert "Not drawn. It would take" in render([run])
    (run / "model.safetensors").write_bytes(b"damaged")
    assert f"Not drawn. {run}" in render([run])


def test_a_study_is_read_without_its_runs(finished_study: Path, tmp_path: Path) -> None:
    page = render([finished_study])
    said = headline(page)
    assert "staged reaches the final Frechet distance (pixels) of unified with 0.50" in said
    assert "(95 % interval 0.50 to 0.50, 2 seeds)" in said
    assert page.count("<img") == 1
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
