"""``multistage report``."""

from pathlib import Path

from tests.cli.conftest import Command, assert_refused


def test_it_writes_a_page_and_replaces_only_reports(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    assert run("report", trained)[0] == 0
    assert run("report", trained, trained)[0] == 0
    assert (trained / "report.html").read_text().count("2 runs compared") == 1
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    assert_refused(run("report", trained, "--out", notes), "is not a report")
    assert notes.read_text() == "mine"
