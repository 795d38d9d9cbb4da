"""The page in a browser: on a phone and a desk, by day and by night, with a keyboard."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

api = pytest.importorskip("playwright.sync_api", reason="the report is tested with playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it embeds axe-core")

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
Case = tuple[int, Literal["light", "dark"]]
ALL: list[Case] = [(360, "light"), (360, "dark"), (1200, "light"), (1200, "dark")]
CASES = {"run": ALL, "runs": [ALL[0], ALL[3]], "study": ALL}
CHARTS = {"run": 4, "runs": 11, "study": 1}
"""Three stages' losses and the stages; with those of both runs together; a metric."""


@dataclass
class Seen:
    """A page, and what it asked for and complained about."""

    page: "Page"
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"there is no {' or '.join(NAMES)} to look at the report with")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, pages: dict[str, str]) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    for kind, page in pages.items():
        (out / f"{kind}.html").write_text(page)
    return {kind: out / f"{kind}.html" for kind in pages}


def seen(browser: "Browser", path: Path) -> Seen:
    page = browser.new_page()
    found = Seen(page)
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    return found


@pytest.mark.parametrize("kind", CASES)
def test_it_fits_is_accessible_and_asks_for_nothing(
    browser: "Browser", files: dict[str, Path], kind: str
) -> None:
    found = seen(browser, files[kind])
    page = found.page
    for width, scheme in CASES[kind]:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        results = axe.Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
    assert page.locator("svg.chart:visible").count() == CHARTS[kind]
    assert page.locator("img:not([alt]), svg.chart:not([aria-label])").count() == 0
    outside = [url for url in found.requests if not url.startswith(("file:", "data:"))]
    assert (found.complaints, outside) == ([], [])
    page.close()


def test_night_has_another_background_than_day(browser: "Browser", files: dict[str, Path]) -> None:
    script = "getComputedStyle(document.body).backgroundColor"
    backgrounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(files["run"].as_uri())
        backgrounds.append(page.evaluate(script))
        page.close()
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(21, 23, 26)"]


def test_the_axis_is_chosen_with_the_keyboard(browser: "Browser", files: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(files["run"].as_uri())
    losses = page.locator("#run-1-losses")
    shown = losses.locator("svg.chart:visible text.end:last-of-type")
    labels = []
    losses.get_by_role("radio", name="images").focus()
    for _ in range(3):
        labels.append(set(shown.all_text_contents()))
        page.keyboard.press("ArrowRight")
    assert [label for found in labels for label in found] == [
        "training images",
        "training multiply-accumulates",
        "seconds of training",
    ]
    page.close()
