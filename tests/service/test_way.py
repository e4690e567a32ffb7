"""A person's whole way in a real browser, by the keyboard alone; then its pages on a phone, dark, on a slow line.

Each step goes on where the one before it ended. What a release needs of the Hub is asked of a Hub of our own.
"""

import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cards.verify import verify
from tests.cards.conftest import TestHub, start_hub  # noqa: F401 - a fixture
from tests.service.conftest import Service
from tests.service.test_page import browser  # noqa: F401 - a fixture

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
_MOST_TABS = 120
_FOCUSED = """() => {
  const at = document.activeElement, label = at.labels && at.labels.length ? at.labels[0].textContent : "";
  return (label || at.getAttribute("aria-label") || at.textContent || at.title).trim().replace(/\\s+/g, " ");
}"""
# What a screen reader has of a run's page: its landmarks and headings, in their order.
_RUN = """
- main:
  - heading "way" [level=1]
  - navigation "way":
    - link "Overview"
    - link "Rows"
    - link "Report"
    - link "Release"
    - link "Log"
  - region "Progress":
    - heading "From prompts to released rows" [level=2]
    - list:
      - listitem
  - region "What can be done":
    - heading "Next" [level=2]
    - link "Look at release 1.0.0"
"""


class Person:
    """Somebody with a keyboard."""

    def __init__(self, page: Any, service: Service) -> None:
        self.page, self.service = page, service

    def go_to(self, begins: str) -> None:
        """Press Tab until the name of what has the focus begins with these words."""
        for _ in range(_MOST_TABS):
            self.page.wait_for_load_state()
            self.page.keyboard.press("Tab")
            # The page may just be giving way to the next one.
            with suppress(playwright.Error):
                if re.fullmatch(rf"{re.escape(begins)}(\W.*)?", self.page.evaluate(_FOCUSED)):
                    return
        raise AssertionError(f"the keyboard does not reach '{begins}' on {self.page.url}")

    def press(self, begins: str) -> None:
        """Go to a button or a link, and press Enter."""
        self.go_to(begins)
        self.page.keyboard.press("Enter")

    def fill(self, begins: str, text: str) -> None:
        """Go to a field and put a text into it; of a list, choose what begins so."""
        self.go_to(begins)
        if self.page.evaluate("document.activeElement.tagName") == "INPUT":
            self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)


def log_in(person: Person) -> None:
    person.page.goto(f"{person.service.url}/login")
    person.fill("Token", person.service.secrets["publish"])
    person.page.keyboard.press("Enter")
    person.page.get_by_role("heading", name="Logged in").wait_for()
    person.press("Go to the runs")
    person.page.get_by_role("heading", name="Runs", exact=True).wait_for()


def start_a_run(person: Person) -> None:
    person.press("New run")
    person.page.get_by_role("heading", name="New run").wait_for()
    person.fill("Name", "way")
    person.fill("Harmful prompts", "3")
    person.fill("Benign prompts", "1")
    person.fill("Reasoning teacher", "rehearsal")
    person.page.get_by_text("16 of 19 responses are to be asked for").wait_for()
    person.press("Start the run")
    person.page.wait_for_url(f"{person.service.url}/ui/runs/way")


def watch_it(person: Person) -> None:
    # Without a reload the page says how the run goes on, and what comes next at its end.
    person.page.locator("#live .badge", has_text="released").wait_for(timeout=300_000)
    person.page.get_by_role("link", name="Look at release 1.0.0").wait_for()
    assert "released" in person.page.locator("#spoken").inner_text()
    playwright.expect(person.page.locator("main")).to_match_aria_snapshot(_RUN)


def find_a_flagged_row(person: Person) -> None:
    person.press("Report")
    frame = person.page.frame_locator("iframe")
    frame.get_by_role("heading", name="Run way").wait_for()
    # Its script does not run there; the figure leads to the rows behind it.
    assert frame.locator("#shown").inner_text() == ""
    figure = frame.locator("a[href*='flag=any']").first
    figure.focus()
    person.page.keyboard.press("Enter")
    person.page.wait_for_url("**/ui/runs/way/rows?*flag=any*")
    row = person.page.locator(".rows li > a").first
    row.focus()
    person.page.keyboard.press("Enter")
    person.page.wait_for_url("**/ui/runs/way/rows/*")
    assert person.page.locator("article").count() >= 1
    person.press("History of this row")
    person.page.get_by_text("checks", exact=True).wait_for()


def build_and_publish_the_release(person: Person) -> None:
    person.press("Release")
    person.page.wait_for_url("**/ui/runs/way/release")
    person.page.get_by_role("heading", name="Safe reasoning by SaferThoughts, version 1.0.0").wait_for()
    person.press("Build the release")
    work = person.page.locator("#last-release")
    work.locator("p", has_text="release, done").wait_for(timeout=300_000)
    for button, ends in (("Only show", "Nothing was written"), ("Publish", "acme/safe@v1.0.0 published")):
        person.fill("Repository", "acme/safe")
        person.press(button)
        person.page.locator("#last-publish", has_text=ends).wait_for(timeout=300_000)
    link = person.page.get_by_role("link", name="acme/safe@v1.0.0")
    assert link.get_attribute("href").endswith("/datasets/acme/safe/tree/v1.0.0")
    with person.page.expect_download() as download:
        person.press("Download release 1.0.0")
    with TemporaryDirectory() as folder, zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(folder)
        assert verify(Path(folder) / "way-1.0.0").faults == ()


def pull_it_as_somebody_else_s(person: Person) -> None:
    person.press("Releases")
    person.page.get_by_role("heading", name="Of others, from the Hub").wait_for()
    person.fill("Repository", "acme/safe")
    person.fill("Version", "1.0.0")
    person.press("Pull and check")
    person.page.get_by_text("Every file has the hash that commit").wait_for(timeout=300_000)
    assert "All match." in person.page.locator(".questions").inner_text()
    person.press("Compare")
    person.page.locator("#compared", has_text="Nothing differs: it is still version 1.0.0").wait_for(timeout=300_000)


STEPS = (log_in, start_a_run, watch_it, find_a_flagged_row, build_and_publish_the_release, pull_it_as_somebody_else_s)
PAGES = ("/ui/runs/way", "/ui/runs/way/release", "/ui/runs/way/report", "/ui/runs/way/log", "/ui/releases")


def test_a_person_s_whole_way_by_the_keyboard_alone(
    browser: Any,  # noqa: F811
    start_hub: Callable[..., TestHub],  # noqa: F811
    tmp_path: Path,
) -> None:
    service = Service(tmp_path / "runs", "--rate", "1000", environment=start_hub().env())
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    person = Person(context.new_page(), service)
    person.page.set_default_timeout(120_000)
    for step in STEPS:
        step(person)
    # The same pages on a phone, in the dark, on a slow line.
    person.page.set_viewport_size({"width": 390, "height": 800})
    person.page.emulate_media(color_scheme="dark")
    line = context.new_cdp_session(person.page)
    slow = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 100_000}
    line.send("Network.emulateNetworkConditions", slow)
    for path in (*PAGES, person.page.url.removeprefix(service.url)):
        person.page.goto(service.url + path)
        assert person.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        found = axe.Axe().run(person.page).response["violations"]
        assert not found, (path, [(one["id"], one["nodes"][0]["html"]) for one in found])
    context.close()
    service.stop()
    shutil.rmtree(service.runs)
