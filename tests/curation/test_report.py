"""report.html: one file, readable with nothing else there, in which hostile rows stay text."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cards.release.build import build_release
from curation.datasets.imported import import_dataset
from curation.quality.checks import check
from curation.report.drift import drift_of
from curation.report.page import write_report
from curation.sql.views import open_views
from pipelines.judges.alone import RULES_ALONE
from pipelines.judges.stage import judge, record_judging, write_verdicts
from pipelines.records import LABELS, Judgement, Prompt, Response, Verdict, from_table, to_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from pipelines.settings.teacher import Teacher
from pipelines.sources import Source
from saferthoughts.cli.app import app
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run
from tests.conftest import changing_tables

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> \u202e {{ 7 * 7 }}"
REFUSING = "That would hurt people badly, and it is against the law as well. I refuse and say so in a sentence."
INTERVAL = {"low": 0.5, "high": 0.9}


def results(text: str) -> dict[str, Any]:
    """A results.json of one question and two models, in the shape that eval/run/results.py writes."""
    labels = ("before", "after")
    rate = {"task": "refusal", "expected": 1, "hits": 1.0, "misses": 0.0, "truncated": 0, "unscored": 0, "errored": 0}
    measure = {"name": "right", "title": text, "better": "higher"}
    answer = {"task": "refusal", "category": "heldout harmful", "id": "q", "question": text, "reasoning": text}
    answer |= {"answer": text, "truncated": False, "detail": {"refused": True, "well_formed": True}}
    return {
        "models": [{"label": label} for label in labels],
        "tasks": [{"name": name, "measure": measure} for name in ("refusal", "none")],
        "rates": [
            {**rate, "task": task, "group": group, "model": label, "rate": INTERVAL}
            for label in labels
            for task, group in (("refusal", ""), ("refusal", "heldout harmful"), ("none", ""))
        ],
        "answers": [{**answer, "model": label} for label in labels],
    }


@pytest.fixture(scope="module")
def hostile_report(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hostile text in a rejected row, one of a megabyte beside it, and hostile students' replies."""
    run = RunFolder(Path(shutil.copytree(judged_once, tmp_path_factory.mktemp("hostile") / "small")))
    responses = from_table(Response, run.read("responses"))
    kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
    broken = [at for at, row in enumerate(responses) if row.variant == "improved" and kinds[row.prompt_id] == "harmful"]
    for at, text in zip(broken, (HOSTILE, HOSTILE + "a" * 1_000_000), strict=False):
        responses[at] = replace(responses[at], reasoning=text, answer=text, finish_reason="length")
    (run.path / "eval").mkdir()
    (run.path / "eval" / "results.json").write_text(json.dumps(results(HOSTILE)))
    with changing_tables():
        run.write("responses", to_table(Response, responses))
        judge(run)
        repair(run)
        check(run)
        return write_report(run)


def test_the_report_can_be_written_before_anything_was_judged(judged: RunFolder) -> None:
    manifest = json.loads((judged.path / "manifest.json").read_text())
    manifest["stages"] = {"prompts": manifest["stages"]["prompts"]}
    (judged.path / "manifest.json").write_text(json.dumps(manifest))
    assert "Not there yet" in write_report(judged).read_text()


def test_the_report_loads_nothing_from_anywhere(hostile_report: Path) -> None:
    page = hostile_report.read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:link|iframe|img|image|use|foreignObject)\b", page)
    assert re.findall(r"<script[^>]*>", page) == ["<script>"]
    assert not re.findall(r"""(?:src|href|action)=["'](?!#(?:section-|rows\?))""", page)
    assert len(page) < 1_500_000


def test_the_funnel_and_report_json_show_what_the_tables_hold(judged: RunFolder) -> None:
    repair(judged)
    done = check(judged)
    page = write_report(judged).read_text()
    figures = json.loads((judged.path / "report.json").read_text())
    names = ["direct", "realsafe", "improved", "short", "template", "nocot", "benign"]
    assert [row["config"] for row in figures["funnel"]] == names
    assert sum(row["answered"] + row["attempts"] for row in figures["funnel"]) == done.responses
    assert sum(row["answered"] for row in figures["funnel"]) == done.rows
    assert sum(row["accepted"] for row in figures["funnel"]) == done.accepted
    assert all(row["planned"] >= row["answered"] >= row["accepted"] for row in figures["funnel"])
    plain = re.sub(r"</?a\b[^>]*>", "", page)
    rows = re.findall(r'<th scope="row">(\w+)</th>' + r'<td class="n">(\d+)</td>' * 6, plain)
    assert [(row[0], int(row[6])) for row in rows[: len(names)]] == [
        (row["config"], row["accepted"]) for row in figures["funnel"]
    ]
    assert figures["examples"]
    assert page.count("<figure ") == 4
    drift = {row["config"]: row for row in figures["drift"]["variants"]}
    assert all(0 <= row["placed"] <= row["flagged"] for row in drift.values())
    assert 0 <= drift["direct"]["p25"] <= drift["direct"]["median"] <= drift["direct"]["p75"] < 1
    assert (figures["drift"]["quotations"] > 0, figures["drift"]["without_place"]) == (True, 0)


def test_a_run_that_was_judged_before_places_were_kept_is_read(judged: RunFolder) -> None:
    old = judged.read("judgements").drop_columns(["spans"])
    judged.write("judgements", old)
    assert {item.spans for item in from_table(Judgement, old)} == {None}
    with open_views(judged) as db:
        drift = drift_of(db)
    assert drift is not None
    assert (drift["variants"], drift["quotations"], drift["unknown"] > 0) == ([], 0, True)


def test_rates_before_and_after_repair_are_those_of_the_verdicts(released: RunFolder) -> None:
    write_report(released)
    figures = json.loads((released.path / "report.json").read_text())
    (row,) = [r for r in figures["patterns"] if (r["config"], r["label"]) == ("direct", "any_pattern")]
    with open_views(released) as db:
        counted = db.sql(
            "SELECT count(*) FILTER (attempt = 0), count(*) FILTER (response_id NOT IN "
            "(SELECT response_id FROM repairs WHERE NOT chosen)) FROM responses JOIN verdicts USING (response_id) "
            "JOIN prompts USING (prompt_id) WHERE variant = 'direct' AND kind = 'harmful' "
            "AND (lack_of_safety_awareness OR overthinking OR inconsistency)"
        ).fetchall()
    # The rules say nothing of most rows; where they speak of none there is no count.
    assert [(row["before"]["count"] or 0, row["after"]["count"] or 0)] == counted
    # The run is judged by rules, which do not tell every pattern of every row: a number found, and no share.
    assert (row["before"]["low"], row["before"]["rate"], row["before"]["high"]) == (None, None, None)
    page = (released.path / "report.html").read_text()
    assert f"at least {row['before']['count']}" in page
    assert page.count("is the baseline") == page.count("<code>direct</code> is the baseline") == 1


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
        timeout=500,
        check=True,
    )
    assert "<title>small: SaferThoughts report</title>" in done.stdout
    assert re.findall(r"<(?:script|img)\b[^>]*>", done.stdout) == ["<script>"]
    # The page's own script ran: it counts the rows that it shows.
    assert re.search(r'<span id="shown" role="status">[1-9]\d* rows</span>', done.stdout)
    assert "&lt;script&gt;document.title='taken'&lt;/script&gt;" in done.stdout
    assert "{{ 7 * 7 }}" in done.stdout
    assert "characters]" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_teachers_with_several_servers_are_named_by_all_of_them(judged: RunFolder) -> None:
    config = load_config(judged)
    urls = ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
    teachers = {name: Teacher(model="m", base_urls=urls) for name in config.teachers}
    save_config(judged, config.model_copy(update={"teachers": teachers}))
    assert ", ".join(urls) in write_report(judged).read_text()
    check(judged)
    build_release(judged)
    # On a card an address is told and not linked: its colon is an entity.
    card = html.unescape((judged.path / "release" / "README.md").read_text())
    assert ", ".join(urls) in card
    assert "None" not in card


def test_a_run_of_real_rows_that_rules_alone_judged_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "reasoning": REFUSING, "answer": "Sorry, no."}))
    run = import_dataset(tmp_path / "runs", "rows", Source(hub=str(path)), {}, "harmful")
    assert words_of(Run(run).judge()).endswith(f"\n{RULES_ALONE}")
    check(run)
    write_report(run)
    assert RULES_ALONE in (run.path / "report.html").read_text()
    assert RULES_ALONE in (build_release(run, license="mit").folder / "README.md").read_text()


def test_a_rehearsed_run_does_not_say_that_rules_alone_were_asked(judged: RunFolder) -> None:
    assert RULES_ALONE not in words_of(Run(judged).judge())


def test_run_of_which_no_verdict_could_be_read_has_a_report(judged: RunFolder) -> None:
    unread = [
        replace(row, **dict.fromkeys(LABELS), reason="empty reply")
        for row in from_table(Verdict, judged.read("verdicts"))
    ]
    judgements = [
        replace(row, **dict.fromkeys(LABELS), reason="empty reply")
        for row in from_table(Judgement, judged.read("judgements"))
    ]
    write_verdicts(judged, judgements, unread)
    record_judging(judged, load_config(judged), judgements, unread)
    page = write_report(judged).read_text(encoding="utf-8")
    assert "Each pattern in each variant" not in page


def test_a_judge_whose_precision_nobody_can_know_is_shown_without_one(judged: RunFolder) -> None:
    check(judged)
    where = ["--runs", str(judged.path.parent)]
    for words in (["judge", "score", judged.name], ["report", judged.name]):
        done = CliRunner().invoke(app, [*where, *words])
        assert done.exit_code == 0, done.output
    scores = json.loads((judged.path / "judge_scores.json").read_text())
    unknown = [line for line in scores["scores"] if line["precision"]["rate"] is None]
    assert unknown
    assert '<td class="n">-</td>' in write_report(judged).read_text(encoding="utf-8")
