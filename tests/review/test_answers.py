"""Votes on answers of an evaluation: ten attack success rates of a guard that errs, corrected by people."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.report.page import read_sources
from eval.report.sections import report_of
from eval.review.corrected import corrected_rates
from eval.run.results import read_results
from pipelines.errors import UserError
from tests.commands import command
from tests.eval.conftest import _serving
from tests.review.conftest import Server

TOPICS = [f"topic-{number}" for number in range(9)]


def unsafe(text: str) -> bool:
    """The truth about the answer to a question, by the question's number."""
    return int(re.findall(r"prank (\d+)", text)[-1]) % 10 < 3


def guard(body: dict[str, Any]) -> str:
    """A guard that misses a third of what is unsafe, and calls three of seven safe answers unsafe."""
    return "Yes." if int(re.findall(r"prank (\d+)", str(body["messages"]))[-1]) % 10 in (0, 1, 4, 5, 6) else "No."


@pytest.fixture(scope="module")
def results(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the rehearsal target on 180 questions."""
    folder = tmp_path_factory.mktemp("evaluated")
    rows = [
        {"question": f"Describe how to play prank {at}", "category": TOPICS[at // 20], "id": f"q{at}"}
        for at in range(180)
    ]
    (folder / "none.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with _serving(guard) as endpoint:
        teacher = {"base_url": endpoint.url, "model": "guard", "api_key_env": None}
        (folder / "teachers.yaml").write_text(yaml.safe_dump({"scripted": teacher}))
        words = ["eval", "rehearsal", "--task", "none", "--guard", "scripted", "--output", str(folder / "eval")]
        files = ["--teachers", str(folder / "teachers.yaml"), "--data", f"none={folder / 'none.jsonl'}"]
        done = command(["--runs", str(server.runs), *words, *files])
    assert done.returncode == 0, done.stderr
    return folder / "eval"


def test_ten_attack_success_rates_are_corrected_by_votes_on_some_answers(server: Server, results: Path) -> None:
    runs = ["--runs", str(server.runs)]
    page = command([*runs, "report", "eval", str(results)])
    assert page.stdout.count("uncorrected") == 1
    pushed = command([*runs, "review", "push", "--eval", str(results), "--votes", "120"])
    assert pushed.returncode == 0, pushed.stderr
    assert "120 answers for 1 rates" in pushed.stdout
    name = re.findall(r"to (eval-\w+) at", pushed.stdout)[0]
    for record in server.records(name):
        server.vote(record, "annotator-1", "no" if unsafe(record["fields"]["prompt"]) else "yes", patterns=None)
    status = command([*runs, "review", "status", "--eval", str(results)])
    assert "120 of 120 rows have their votes" in status.stdout
    assert "annotator-1: 120 submitted, 0 left" in status.stdout
    assert command([*runs, "review", "pull", "--eval", str(results)]).stdout.startswith(
        "120 votes by 1 people, 120 new"
    )

    found = read_results(results)
    corrected = corrected_rates(results, found)
    assert len(corrected) == len(found.rates) == 10
    outside = 0
    for rate in found.rates:
        own = [one for one in found.answers if rate.group in ("", one.category)]
        truth = sum(unsafe(one.question) for one in own) / len(own)
        one = corrected[rate.model, rate.task, rate.group]
        assert one.rate.low <= truth <= one.rate.high
        outside += abs(rate.hits / rate.n - truth) > 0.04
    assert outside >= 5, "the guard's own rates are off"
    page = command([*runs, "report", "eval", str(results)])
    assert page.returncode == 0, page.stderr
    assert (results / "report" / "report.html").read_text().count("corrected ") >= 10
    assert "120 votes" in page.stdout
    assert "uncorrected" not in page.stdout

    # Scored again by rules, the answers are the ones that people voted on, drawn as they were; a part of them is not.
    again = command([*runs, "rescore", str(results), "--guard", "rules"])
    assert again.returncode == 0, again.stderr
    rescored = read_results(results / "rescored-rules-full")
    assert rescored.rates != found.rates
    assert corrected_rates(results / "rescored-rules-full", rescored) == corrected
    part = replace(rescored, tasks=tuple(replace(run, score="answer") for run in rescored.tasks))
    assert corrected_rates(results / "rescored-rules-full", part) == {}


def test_more_votes_go_on_and_answers_that_changed_have_none(server: Server, results: Path, tmp_path: Path) -> None:
    again = command(["--runs", str(server.runs), "review", "push", "--eval", str(results), "--votes", "130"])
    assert "130 rows in the sample, 10 sent now" in again.stdout, again.stderr
    for file in ("results.json", "reviews.parquet"):
        (tmp_path / file).write_bytes((results / file).read_bytes())
    (tmp_path / "results.json").write_text((results / "results.json").read_text().replace("prank 1", "joke 1"))
    before, after = (corrected_rates(folder, read_results(folder)) for folder in (results, tmp_path))
    assert sum(one.votes for one in after.values()) < sum(one.votes for one in before.values())
    (tmp_path / "reviews.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"reviews\.parquet"):
        report_of(read_sources([tmp_path]))


def test_what_cannot_be_pushed_is_told(server: Server, tmp_path: Path, results: Path) -> None:
    push = ["--runs", str(server.runs), "review", "push", "--eval"]
    for words, expected in (
        ([*push, str(tmp_path)], "There are no results at"),
        ([*push, str(results), "--rows", "5"], "--eval takes --votes"),
        ([*push[:-1], "a-run", "--eval", str(results)], "one of the two"),
        ([*push[:-2], "pull", "--eval", str(results.parent)], "were not pushed yet. Run first"),
    ):
        done = command(words)
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
