"""Both reports as people have them: wide and narrow, light and dark, by the keyboard and by a screen reader (axe)."""

import re
from pathlib import Path
from typing import Any

import pytest

from curation.report.page import write_report
from eval.report.page import write_evaluation_report
from pipelines.runs import RunFolder
from tests.eval.test_report import paper, source

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
OPEN = "for (const one of document.querySelectorAll('details')) one.open = true"
CUT = """[...document.querySelectorAll('table, svg')]
    .filter(e => e.parentElement.scrollWidth > e.parentElement.clientWidth)"""
UNREACHED = f"{CUT}.filter(e => e.parentElement.tabIndex < 0).length"


def seen(browser: Any, path: Path) -> None:
    """Look at a page at both widths, light and dark, everything unfolded."""
    for width, scheme in ((1360, "light"), (390, "dark")):
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        page.evaluate(OPEN)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        # Nothing is cut on a desk; on a phone, what is wider scrolls inside itself, by the keyboard too.
        assert width < 1360 or page.evaluate(f"{CUT}.length") == 0
        assert page.evaluate(UNREACHED) == 0
        found = axe.Axe().run(page).response["violations"]
        assert not found, [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
        page.close()


def links(path: Path) -> list[str]:
    """The fragments that a page's links lead to; each must be there."""
    page = path.read_text(encoding="utf-8")
    wanted = re.findall(r'href="#([^"]+)"', page)
    assert set(wanted) <= set(re.findall(r'id="([^"]+)"', page))
    return wanted


def test_the_report_of_a_run(browser: Any, released: RunFolder) -> None:
    path = write_report(released)
    found = links(path)
    assert "rows?config=direct&amp;flag=any&amp;where=attempt%3Aeq%3A0" in found
    assert "rows?config=improved&amp;outcome=accepted" in found
    seen(browser, path)


def test_the_report_of_an_evaluation(browser: Any, tmp_path: Path) -> None:
    write_evaluation_report([source("mine", paper())], tmp_path)
    assert {"section-0", "answers1-pair", "answers1-xstest"} <= set(links(tmp_path / "report.html"))
    seen(browser, tmp_path / "report.html")
