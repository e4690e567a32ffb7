"""The page in a real browser: hostile rows, keyboard, phone, no script; test_way.py goes a person's whole way."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.quality.checks import check
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder, write_json
from tests.service.conftest import Service

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)> {{ 7 * 7 }} {% raw %} "
    "<iframe src=/ui/new></iframe> </mark></article> javascript:alert(4) \u202eright to left "
    "<style>*{display:none}</style> <a hx-get=/logout hx-trigger=load>x</a>"
)
Open = Callable[..., Any]
# Playwright waits half a minute by itself, which a busy machine takes for one page.
PATIENCE_MS = 300_000


@pytest.fixture(scope="module")
def pages(browser: Any, service: Service) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """A page for each role, logged in by token, and what it noted: a context costs as much as four pages."""
    made: dict[str, tuple[Any, list[str]]] = {}

    def log_in(role: str, **options: Any) -> tuple[Any, list[str]]:
        if (key := f"{role} {options}") in made:
            return made[key]
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}).new_page()
        noted: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("dialog", lambda dialog: (noted.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: noted.append(f"error {error}"))
        page.on("console", lambda message: noted.append(message.text) if "Content Security" in message.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(service.url) else noted.append(asked.url))
        page.goto(f"{service.url}/login")
        page.get_by_label("Token").fill(service.secrets[role])
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Go to the runs").click()
        made[key] = page, noted
        return made[key]

    yield log_in
    for page, _ in made.values():
        page.context.close()


@pytest.fixture
def opened(pages: Callable[..., tuple[Any, list[str]]], service: Service) -> Iterator[Open]:
    """Open the list of runs, logged in; there must be no dialogs, errors, refused loads or requests to elsewhere."""
    used: list[list[str]] = []

    def open_runs(role: str = "run", **options: Any) -> Any:
        page, noted = pages(role, **options)
        used.append(noted)
        page.goto(service.url)
        page.get_by_role("heading", name="Runs").wait_for()
        return page

    yield open_runs
    assert [line for noted in used for line in noted] == []


def test_the_worst_rows_are_found_and_walked_through_by_keys(opened: Open, service: Service, tmp_path: Path) -> None:
    worst = service.get("/runs/small/rows", sort="-worst", where="kind:eq:harmful", texts=True)["rows"]
    page = opened("run")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{service.url}/ui/runs/small/rows?where=kind:eq:harmful")
    page.get_by_text(f"{len(worst)} rows, 1 to {len(worst)}. Worst first").wait_for()
    shown = page.locator(".rows li").evaluate_all("all => all.map(one => one.id.slice(2))")
    assert shown == [row["response_id"] for row in worst]
    # Keys move, tick, open, go on and come back to the same row of the same list.
    for key in ("j", "j", "k", "x"):
        page.keyboard.press(key)
    assert page.locator(".rows li").first.get_by_role("checkbox").is_checked()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export JSON lines").click()
    download.value.save_as(tmp_path / "rows.jsonl")
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == worst[:1]
    page.locator(".rows li > a").first.press("Enter")
    page.locator(f"article.at[id='{worst[0]['response_id']}']").wait_for()
    page.get_by_text(f"1 of {len(worst)}", exact=True).wait_for()
    page.keyboard.press("j")
    page.get_by_text(f"2 of {len(worst)}", exact=True).wait_for()
    assert worst[1]["response_id"] in page.url
    page.locator("article.at").get_by_role("button", name="Copy the text").click()
    page.locator("[data-copy]", has_text="Copied").wait_for()
    assert worst[1]["answer"] in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("next row, the one before").wait_for()
    page.keyboard.press("Escape")
    page.locator("article.at").get_by_role("button", name="Show changes").click()
    page.get_by_role("heading", name="What differs").wait_for()
    assert page.locator("article ins").count() + page.locator("article del").count() > 0
    page.go_back()
    page.keyboard.press("Escape")
    page.get_by_text(f"{len(worst)} rows, 1 to {len(worst)}").wait_for()
    assert page.url.endswith(f"#r-{worst[1]['response_id']}")
    # A search keeps the filters; each is one click from gone, and the address says it all.
    page.get_by_label("Search").fill("zzzznothing")
    page.keyboard.press("Enter")
    page.get_by_text("No row fits").wait_for()
    assert "q=zzzznothing" in page.url
    page.get_by_role("link", name="kind:eq:harmful").click()
    page.get_by_role("heading", name="No row fits").wait_for()
    assert "kind" not in page.url


def test_two_changes_at_once_are_both_shown(opened: Open, service: Service) -> None:
    page = opened()
    page.goto(f"{service.url}/ui/runs/small")
    asked = "() => performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/live')).length"
    page.wait_for_function(f"{asked} >= 1")
    before = page.evaluate(asked)
    # The second comes while the first is still asked for.
    page.evaluate("for (let i = 0; i < 2; i++) htmx.trigger('#live', 'sse:state')")
    page.wait_for_function(f"{asked} >= {before + 2}")
    assert page.evaluate(asked) >= before + 2


def test_a_run_is_deleted_after_its_name_was_typed(opened: Open, service: Service) -> None:
    with service.client("read") as client:
        content = client.get("/runs/small/run.zip").content
    page = opened("publish")
    page.get_by_text("Import a run").click()
    page.locator("#archive").set_input_files({"name": "x.zip", "mimeType": "application/zip", "buffer": content})
    page.get_by_role("button", name="Import").click()
    page.get_by_text("There is a run 'small'").wait_for()
    service.post("/runs/small/rename", {"name": "small-1"})
    page.get_by_role("button", name="Import").click()
    page.wait_for_url(f"{service.url}/ui/runs/small")
    page.goto(f"{service.url}/ui/runs/small/manage")
    page.get_by_text("responses.parquet").wait_for()
    page.get_by_label("Type small").fill("smal")
    page.get_by_role("button", name="Delete the run").click()
    assert "Nothing was deleted" in page.get_by_role("alert").inner_text()
    page.go_back()
    page.get_by_label("Type small").fill("small")
    page.get_by_role("button", name="Delete the run").click()
    page.get_by_role("heading", name="Runs").wait_for()
    assert service.post("/runs/small-1/rename", {"name": "small"}).status_code == 200


def test_evidence_is_marked_where_it_stands(opened: Open, service: Service) -> None:
    page = opened("read")
    page.goto(f"{service.url}/ui/runs/small/rows?flag=any")
    page.locator(".rows a").first.click()
    marked = page.locator("article.at .text mark")
    assert marked.count() >= 1
    quoted = page.locator("article.at .judges q").all_inner_texts()
    label = marked.first.locator(".for").inner_text()
    text = marked.first.inner_text().removeprefix(label)
    assert any(quote.strip() in text for quote in quoted)


def test_hostile_rows_stay_text(opened: Open, service: Service) -> None:
    shutil.copytree(service.runs / "small", service.runs / "hostile")
    run = RunFolder.open(service.runs, "hostile")
    write_json(run.path / "manifest.json", {**run.manifest(), "name": "hostile"})
    prompts = [replace(prompt, text=HOSTILE, category=HOSTILE) for prompt in from_table(Prompt, run.read("prompts"))]
    run.write("prompts", to_table(Prompt, prompts))
    rows = [
        replace(row, reasoning=HOSTILE, answer=HOSTILE, model=HOSTILE)
        for row in from_table(Response, run.read("responses"))
    ]
    run.write("responses", to_table(Response, rows))
    # What the stages read is noted anew, as if they had met these texts.
    run.record("generate", counts=run.manifest()["stages"]["generate"]["counts"])
    judge(run)
    check(run)
    (run.path / "service.log").write_text(HOSTILE)
    service.get("/runs/hostile/rows")  # laid out before the page looks
    page = opened("publish")
    first = rows[0]
    for path in (
        "rows",
        f"rows/{first.prompt_id}",
        f"history/{first.response_id}",
        "log",
    ):
        page.goto(f"{service.url}/ui/runs/hostile/{path}")
        page.wait_for_timeout(200)
        shown = page.locator("main").inner_text()
        assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in shown, path
        assert page.locator("main iframe, main script, main style, main img, main svg[onload]").count() == 0, path
    assert "[U+202E]right to left" in shown
    # Still logged in: the markup of the rows asked for nothing.
    page.goto(f"{service.url}/ui/runs/hostile/rows?where=%3Cscript%3Ealert(9)%3C/script%3E")
    assert "where takes column:op:value" in page.get_by_role("alert").inner_text()


def test_the_report_is_shown_and_runs_nothing(opened: Open, service: Service) -> None:
    page = opened("read")
    with page.expect_response(re.compile("framed=true")) as answer:
        page.goto(f"{service.url}/ui/runs/small/report")
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Run small").wait_for()
    assert frame.locator("figure svg").count() >= 1
    assert "script" not in answer.value.headers["content-security-policy"]
    page.goto(f"{service.url}/runs/small/report")
    assert page.evaluate("self.origin") == "null"


def test_the_keyboard_reaches_everything_and_everything_has_a_name(opened: Open, service: Service) -> None:
    page = opened("publish")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for path in (
        "/",
        "/ui/new",
        "/ui/runs/small",
        "/ui/runs/small/rows",
        "/ui/teachers",
        "/docs",
        "/ui/keys",
        "/ui/costs",
        "/ui/review/small",
    ):
        answer = page.goto(service.url + path)
        assert answer.status == 200, path
        assert page.locator("main").count() == page.locator("h1").count() == 1
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, progress")]
                .filter(e => !(e.textContent.trim() || e.ariaLabel || e.title || (e.labels && e.labels.length)))
                .map(e => e.outerHTML)"""
        )
        assert nameless == [], path


def test_a_phone_scrolls_down_and_never_sideways(opened: Open, service: Service) -> None:
    page = opened("run", viewport={"width": 360, "height": 740})
    places = page.get_by_role("navigation", name="Main").get_by_role("link")
    edges = places.evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(edges) > 10
    assert max(edges) <= 360
    prompt = service.get("/runs/small/rows")["rows"][0]["prompt_id"]
    for path in ("", "/rows", f"/rows/{prompt}", "/report", "/log"):
        page.goto(f"{service.url}/ui/runs/small{path}")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, scheme)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) > 3 * 128
            assert light == (scheme == "light")


def test_without_a_script_the_form_tells_what_does_not_fit(opened: Open, service: Service) -> None:
    page = opened("run", java_script_enabled=False)
    page.goto(f"{service.url}/ui/new")
    page.get_by_label("Name").fill("small")
    page.get_by_label("Reasoning teacher").select_option("rehearsal")
    page.get_by_label("Harmful prompts", exact=True).fill("7")
    page.get_by_role("button", name="Start the run").click()
    assert "There is a run 'small'" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Harmful prompts", exact=True).input_value() == "7"
    assert page.get_by_label("Reasoning teacher").input_value() == "rehearsal"


def test_a_reader_is_offered_nothing_that_changes_a_run(opened: Open, service: Service) -> None:
    page = opened("read")
    page.goto(f"{service.url}/ui/runs/small")
    assert page.get_by_role("link", name="Download release").count() == 1
    assert page.locator("main form").count() == 0
    page.goto(f"{service.url}/ui/new")
    assert page.get_by_role("button", name="Start the run").is_disabled()
    page.goto(f"{service.url}/ui/runs/nowhere")
    assert "run under" in page.get_by_role("alert").inner_text()
    page.goto(f"{service.url}/ui/nowhere")
    assert "nothing at this address" in page.get_by_role("alert").inner_text()


def test_the_printed_link_logs_in_once(browser: Any, service: Service) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(service.link)
    page.get_by_role("link", name="Go to the runs").click()
    page.get_by_role("heading", name="Runs").wait_for()
    page.goto(service.link)
    assert "was used already" in page.get_by_role("alert").inner_text()
    context.close()
