"""report.html: one file, readable with nothing else there, in which hostile rows stay text."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cards.release import build_release
from curation.checks import check
from curation.report import write_report
from pipelines.config import Teacher, load_config, save_config
from pipelines.runs import RunFolder

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> \u202e {{ 7 * 7 }}"
INTERVAL = {"low": 0.5, "high": 0.9}


def scores(text: str) -> dict[str, Any]:
    """A scores.json of one question and two models, in the shape that eval/scores.py writes."""
    group = {"set": "heldout", "kind": "harmful", "n": 1, "refused": 1, "well_formed": 1, "truncated": 0, "unscored": 0}
    sample = {"set": "heldout", "kind": "harmful", "id": "q", "text": text, "reasoning": text, "answer": text}
    return {
        "models": [{"label": "before"}, {"label": "after"}],
        "groups": [
            {**group, "model": label, "refused_rate": INTERVAL, "well_formed_rate": INTERVAL}
            for label in ("before", "after")
        ],
        "samples": [{**sample, "model": label, "refused": True, "truncated": False} for label in ("before", "after")],
    }


@pytest.fixture
def hostile_report(judged: RunFolder) -> Path:
    check(judged)
    (judged.path / "scores.json").write_text(json.dumps(scores(HOSTILE)))
    return write_report(judged)


def test_the_report_can_be_written_before_anything_was_judged(judged: RunFolder) -> None:
    manifest = json.loads((judged.path / "manifest.json").read_text())
    manifest["stages"] = {"prompts": manifest["stages"]["prompts"]}
    (judged.path / "manifest.json").write_text(json.dumps(manifest))
    assert "Not there yet" in write_report(judged).read_text()


def test_the_report_loads_nothing_from_anywhere(hostile_report: Path) -> None:
    page = hostile_report.read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:script|link|iframe|img)\b", page)


def test_the_funnel_shows_what_the_tables_hold(judged: RunFolder) -> None:
    done = check(judged)
    page = write_report(judged).read_text()
    rows = re.findall(r'<th scope="row">(\w+)</th><td class="n">(\d+)</td><td class="n">(\d+)</td>', page)
    assert [row[0] for row in rows] == ["default", "realsafe", "improved", "short", "template", "nocot", "benign"]
    assert sum(int(row[1]) for row in rows) == done.responses
    assert sum(int(row[2]) for row in rows) == done.accepted


def test_a_rehearsal_is_called_that(judged: RunFolder) -> None:
    assert "rehearsal teacher: a program that stands in for a model" in write_report(judged).read_text()


def test_hostile_rows_stay_text_in_a_browser(hostile_report: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [browser, *flags, "--enable-logging=stderr", "--dump-dom", hostile_report.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "<title>small: SaferThoughts report</title>" in done.stdout
    assert not re.findall(r"<(?:script|img)\b", done.stdout)
    assert "&lt;script&gt;document.title='taken'&lt;/script&gt;" in done.stdout
    assert "{{ 7 * 7 }}" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_teachers_with_several_servers_are_named_by_all_of_them(judged: RunFolder) -> None:
    config = load_config(judged)
    urls = ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
    teachers = {name: Teacher(model="m", base_urls=urls) for name in config.teachers}
    save_config(judged, config.model_copy(update={"teachers": teachers}))
    assert ", ".join(urls) in write_report(judged).read_text()
    check(judged)
    build_release(judged)
    card = (judged.path / "release" / "README.md").read_text()
    assert ", ".join(urls) in card
    assert "None" not in card
