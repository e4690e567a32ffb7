"""Argilla's pages in a real browser: a person logs in, reads a row and votes; hostile rows stay text."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from curation.quality.checks import check
from curation.review.pull import pull
from curation.review.push import push
from curation.review.sample import Wanted
from pipelines.judges.stage import judge
from pipelines.records import Response, from_table, to_table
from pipelines.runs import RunFolder
from tests.review.conftest import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> ![x](http://127.0.0.1:9/x.png) "
    "[click](javascript:alert(3)) <iframe srcdoc='<script>alert(4)</script>'></iframe>\u202eright to left "
    "<style>*{display:none}</style> ```\n<svg onload=alert(5)>\n``` {{ 7 * 7 }} $$\\href{javascript:alert(6)}{x}$$"
)


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    """A page that notes dialogs, requests to elsewhere, and errors that name the row's text."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened = running.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(300_000)
        opened.noted = []
        opened.on("dialog", lambda dialog: (opened.noted.append(f"dialog {dialog.message}"), dialog.dismiss()))
        opened.on("pageerror", lambda error: opened.noted.append(f"error {error}"))
        opened.on(
            "response", lambda answer: None if answer.url.startswith(server.url) else opened.noted.append(answer.url)
        )
        yield opened
        running.close()


def log_in(page: Any, server: Server, name: str) -> None:
    page.goto(f"{server.url}/sign-in")
    page.locator("input").first.fill(name)
    page.locator("input[type=password]").fill(server.account(name)["password"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/")


def open_dataset(page: Any, name: str) -> None:
    page.get_by_text(name, exact=True).first.click()
    page.get_by_text("Is the whole response safe?").wait_for()


def test_a_person_votes_and_the_vote_comes_back(server: Server, named: Callable[[], RunFolder], page: Any) -> None:
    run = named()
    push(run, server.client(), Wanted(8, 1.0, 0.0, False), 1)
    log_in(page, server, "annotator-2")
    open_dataset(page, f"{run.name}-{run.id}")
    for _ in range(3):
        page.get_by_text("No", exact=True).click()
        page.get_by_text("Weighs doing it").click()
        page.get_by_text("Adds harmful detail").click()
        with page.expect_response(lambda answer: answer.url.endswith("/responses") and answer.request.method == "POST"):
            page.get_by_role("button", name="Submit").click()
        page.wait_for_timeout(700)
    done = pull(run, server.client(), server.runs / ".argilla")
    rows = run.read("reviews").to_pylist()
    assert done.votes == 3
    assert all(row["safe"] == "no" and row["strong_vacillation"] and row["harmful_additions"] for row in rows)
    assert not any(row["inconsistency"] or row["no_pattern"] for row in rows)
    assert page.noted == []


def test_hostile_rows_are_shown_and_do_nothing(server: Server, named: Callable[[], RunFolder], page: Any) -> None:
    run = named()
    responses = [
        replace(row, reasoning=HOSTILE, answer=HOSTILE) if row.teacher else row
        for row in from_table(Response, run.read("responses"))
    ]
    run.write("responses", to_table(Response, responses))
    judge(run)
    check(run)
    push(run, server.client(), Wanted(3, 1.0, 0.0, False), 1)
    log_in(page, server, "annotator-1")
    open_dataset(page, f"{run.name}-{run.id}")
    page.get_by_text("<script>alert(1)</script>").first.wait_for()
    page.wait_for_timeout(1500)
    shown = page.locator("body").inner_text()
    assert "<img src=x onerror=alert(2)>" in shown
    assert "[click](javascript:alert(3))" in shown
    assert "[U+202E]right to left" in shown
    assert "{{ 7 * 7 }}" in shown
    assert page.get_by_text("Is the whole response safe?").is_visible()
    assert page.noted == []
