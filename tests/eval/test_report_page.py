"""The report's page in a real browser: hostile text stays text, and nothing is loaded or run."""

import re
from pathlib import Path
from typing import Any

import pytest

from eval.report.page import read_sources, write_evaluation_report
from eval.run.results import write_results
from tests.eval.made_results import Value, compared, measured, results, task_run

HOSTILE = (
    "<script>alert(1)</script><img src=http://127.0.0.1:9/x.png onerror=alert(2)><svg onload=alert(3)>"
    "</pre></details></style></title><iframe srcdoc='<script>alert(4)</script>'></iframe>"
    "<a href=javascript:alert(5)>x</a><style>*{display:none}</style> {{ 7 * 7 }} {% raw %} \u202e &lt;b&gt; '\"`"
)
VALUES: list[Value] = [1.0, 0.0, None, "error"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose every word that comes from outside is hostile: prompts, answers, labels, categories, names."""
    folder = tmp_path_factory.mktemp("hostile")
    models = [measured(HOSTILE, HOSTILE, "raw", HOSTILE), measured("b", "Qwen3-14B", HOSTILE)]
    tasks = ("none", "pap", "xstest", "refusal")
    changed = {"settings": {HOSTILE: HOSTILE}, "roles": {HOSTILE: HOSTILE}, "prompts": {HOSTILE: HOSTILE}}
    found = results(
        models,
        {task: {model.label: VALUES for model in models} for task in tasks},
        {task: task_run(task, HOSTILE, "full", **changed) for task in tasks},
        text=HOSTILE,
        categories=[HOSTILE, "x"],
        comparisons=[compared("none", HOSTILE, "b")],
    )
    write_results(found, folder / "results.json")
    write_evaluation_report(read_sources([folder]), folder / "report")
    return folder / "report"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_words_stay_text(hostile: Path, browser: Any, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 500, "height": 900})
    page.set_default_timeout(300_000)
    noted: list[str] = []
    page.on("dialog", lambda dialog: (noted.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: noted.append(f"error {error}"))
    page.on("console", lambda message: noted.append(f"console {message.text}"))
    page.on("request", lambda request: noted.append(request.url))
    address = (hostile / "report.html").as_uri()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    page.wait_for_timeout(300)
    assert noted == [address]
    shown = page.locator("body").inner_text()
    assert shown.count("<script>alert(1)</script>") > 20
    assert "{{ 7 * 7 }} {% raw %}" in shown
    assert page.locator("script, img, iframe, a:not([href^='#']), body style").count() == 0
    assert page.get_by_role("heading", name="How it was measured").is_visible()
    # The page itself never scrolls sideways, its tables do.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def test_the_page_has_nothing_that_loads_or_runs(hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'" in page
    assert not re.findall(r"<(?:link|script|iframe|img|image|use|foreignObject|form)\b", page)
    assert not re.findall(r"""\s(?:src|href|action|on\w+)=["'](?!#(?:section|answers)\d*-)""", page)


def test_the_svg_files_hold_no_markup_of_others(hostile: Path) -> None:
    for path in (hostile / "plots").glob("*.svg"):
        assert not re.findall(r"<(?:script|img|iframe|a)\b", path.read_text(encoding="utf-8"))
    assert {path.name for path in (hostile / "plots").iterdir()} == {
        f"{name}.{form}" for name in ("tradeoff", "categories") for form in ("svg", "png")
    }


def test_the_markdown_holds_no_question_and_no_answer(tmp_path: Path) -> None:
    found = results([measured("m")], {"none": {"m": VALUES}}, text="a question or an answer")
    write_results(found, tmp_path / "results.json")
    write_evaluation_report(read_sources([tmp_path]), tmp_path / "report")
    assert "a question or an answer" not in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "a question or an answer" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
