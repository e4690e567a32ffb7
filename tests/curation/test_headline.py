"""The first lines of a run's report: what they count, and that nothing unmeasured is a figure."""

import re
from typing import Any

from curation.report.data import figures_of
from curation.report.headline import headline_of, with_contents
from curation.report.page import write_report
from pipelines.runs import RunFolder

NOTHING: dict[str, Any] = {"funnel": None, "baselines": [], "patterns": [], "costs": None, "people": None}


def test_the_headline_counts_what_the_tables_hold(released: RunFolder) -> None:
    found = headline_of(figures_of(released))
    assert found["answered"] == len(released.read("responses")) - 3  # repair's attempts are no rows
    assert found["accepted"] == released.stage("check")["counts"]["accepted"]  # type: ignore[index]
    assert found["released"] == sum(released.stage("release")["rows"].values())  # type: ignore[index]
    assert (found["config"], found["unsafe"]["config"], found["cost"], found["votes"]) == (
        "improved",
        "improved",
        None,
        None,
    )
    page = write_report(released).read_text()
    assert f"{found['released']}<small>of {found['answered']} answered" in page
    assert "no price known" in page
    titles = re.findall(r'<h2 id="(section-\d+)">', page)
    assert titles == re.findall(r'<a class="level2" href="#(section-\d+)">', page)
    assert len(titles) > 5


def test_what_nobody_measured_is_none() -> None:
    found = headline_of(NOTHING)
    assert set(found.values()) == {None}
    cost = [{"requests": 2, "cost": None}, {"requests": 1, "cost": 0.5}]
    assert headline_of({**NOTHING, "costs": cost})["cost"] == 0.5


def test_contents_are_the_sections_as_text() -> None:
    page = with_contents("<!-- contents --><h2>One &lt;b&gt;</h2><h2>Two</h2>")
    link = '<a class="level2" href="#section-{}">'
    assert page.startswith(f'<nav aria-label="Contents">{link.format(0)}One &lt;b&gt;</a> {link.format(1)}Two</a>')
