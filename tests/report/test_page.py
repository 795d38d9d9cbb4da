import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from multistage_diffusion.clustering import ClusterOptions, cluster
from multistage_diffusion.data import Images
from multistage_diffusion.data.png import grid_image, save_png
from multistage_diffusion.errors import BadInput
from multistage_diffusion.report import render
from multistage_diffusion.schedule import VP
from multistage_diffusion.training import train
from tests.conftest import run_on


@pytest.fixture
def run(tmp_path: Path, few_digits: Images, digits: Images) -> Path:
    list(train(run_on(few_digits), few_digits, tmp_path / "run"))
    found = cluster(digits, VP(), ClusterOptions(pairs=8, levels=17))
    (tmp_path / "run" / "stages.json").write_text(json.dumps(found.to_json(digits, "vp")))
    save_png(
        tmp_path / "run" / "samples.png", grid_image(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), 2)
    )
    return tmp_path / "run"


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
    assert len(re.findall("<svg", page)) == 2
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


def test_several_runs_stand_on_one_page(run: Path) -> None:
    assert render([run, run]).count("<h1>") == 2


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
