"""Kinds of answers against whole calls of `judge` and `repair`: each ends as one row with its reason, or a stop."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.errors import UserError
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Repair, Response, Verdict, from_table, to_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options
from saferthoughts.cli.app import app
from tests.pipelines.reply_bodies import (
    CUT,
    FOR_GOOD,
    KEPT,
    KEY,
    MALFORMED,
    RETRIED,
    STOPS,
    SUSPECT,
    TOO_LONG,
    WAITED,
    Ending,
    Kind,
    good,
    refused,
)
from tests.pipelines.reply_kinds import KINDS
from tests.pipelines.reply_server import serving_beside
from tests.pipelines.test_judge import response

FINE = Kind("", "", (good({"role": "assistant", "content": "No.", "reasoning_content": "I should not."}),), KEPT)
PERMANENT = (FOR_GOOD, MALFORMED, TOO_LONG)
FAILS = (*PERMANENT, RETRIED, WAITED, SUSPECT)


def _representatives() -> list[Kind]:
    """One kind of each group and ending that the first request decides."""
    found: dict[tuple[str, Ending], Kind] = {}
    for one in KINDS:
        if len(one.plays) == 1 and one.plays[0] is not None and not one.fields:
            found.setdefault((one.group, one.ending), one)
    return list(found.values())


CHOSEN = _representatives()
ROWS = [one for one in CHOSEN if one.ending is not STOPS]
STOPPING = [one for one in CHOSEN if one.ending is STOPS]

pytestmark = pytest.mark.usefixtures("at_once")


def played(kinds: list[Kind]) -> Callable[[dict[str, Any]], Kind]:
    """What answers with the kind that a request's prompt names: the first prompt is answered well."""

    def choose(body: dict[str, Any]) -> Kind:
        text = json.dumps(body["messages"])
        return next((one for number, one in enumerate(kinds, 1) if f"question {number:03d}" in text), FINE)

    return choose


def run_of(new_run: Callable[..., RunFolder], url: str, kinds: list[Kind], judges: str) -> RunFolder:
    """A run with a row for each kind after one that is answered well, asked one at a time."""
    entry = {"model": "m", "base_url": url, "retries": 0, "in_flight": 1, "api_key_env": "A_KEY", "stream": False}
    own = {"kind": "patterns", "teacher": "own", "output": "text", "asks": 1}
    asked = {name: value for name, value in entry.items() if name not in ("model", "base_url")}
    sets = [f"teachers.flags.{name}={json.dumps(value)}" for name, value in asked.items()]
    sets += [f"judges.own={json.dumps(own)}", f"judge_teachers.own={json.dumps(entry)}", "repair.attempts=1"]
    sets.append('repair.variants=["direct"]')
    run = new_run(
        harmful=1, benign=0, base_url=url, model="m", variants=("direct",), judges=(judges,), sets=tuple(sets)
    )
    ids = [f"p{number:03d}" for number in range(len(kinds) + 1)]
    texts = [f"How do I do what is asked in question {number:03d}?" for number in range(len(ids))]
    prompts = [
        Prompt(name, "harmful", "b1", "", "illicit/violent", text, text, "own", "apache-2.0")
        for name, text in zip(ids, texts, strict=True)
    ]
    rows = [
        response(answer="Sure, here it is.", response_id=f"r{name}", prompt_id=name, teacher="flags") for name in ids
    ]
    run.write("prompts", to_table(Prompt, prompts))
    run.write("responses", to_table(Response, rows))
    return run


def test_every_ending_is_played() -> None:
    assert {one.ending for one in CHOSEN} == {
        KEPT, CUT, RETRIED, WAITED, MALFORMED, FOR_GOOD, TOO_LONG, SUSPECT, STOPS,
    }  # fmt: skip
    assert len(CHOSEN) >= 20


def test_judging_leaves_a_row_unscored_with_its_reason(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(played(ROWS)) as server:
        run = run_of(new_run, server.url, ROWS, "own")
        done = judge(run)
        assert len(server.bodies) == len(ROWS) + 1
    verdicts = from_table(Verdict, run.read("verdicts"))
    assert len(verdicts) == done.unscored == len(ROWS) + 1
    for one, verdict in zip(ROWS, verdicts[1:], strict=True):
        failed = verdict.reason.startswith(("own: request failed: ", "own: request refused for good: "))
        assert failed == (one.ending in FAILS), (one, verdict.reason)
        assert verdict.reason.isprintable()
        assert KEY not in verdict.reason
        if one.ending is CUT:
            assert "cut" in verdict.reason or "content filter" in verdict.reason, (one, verdict.reason)
        if failed:
            assert one.holds.get("words", "") in verdict.reason
    entry = run.stage("judge")
    assert entry is not None
    assert entry["failures"]["rows"] == sum(one.ending in FAILS for one in ROWS)
    assert entry["failures"]["permanent"] >= sum(one.ending in PERMANENT for one in ROWS)


def test_repair_leaves_a_row_as_it_was_with_the_reason(new_run: Callable[..., RunFolder]) -> None:
    with serving_beside(played(ROWS)) as server:
        run = run_of(new_run, server.url, ROWS, "rules")
        assert judge(run).responses == len(ROWS) + 1
        done = repair(run)
        assert len(server.bodies) == len(ROWS) + 1
    assert done.flagged == len(ROWS) + 1
    trees: dict[str, list[Repair]] = {}
    for item in from_table(Repair, run.read("repairs")):
        trees.setdefault(item.root_id, []).append(item)
    assert len(trees) == len(ROWS) + 1
    assert all(sum(item.chosen for item in tree) == 1 for tree in trees.values())
    for number, one in enumerate(ROWS, 1):
        attempts = len(trees[f"rp{number:03d}"]) - 1
        assert attempts == (one.ending in (KEPT, CUT)), one
    failing = [one for one in ROWS if one.ending in FAILS]
    assert done.failures.rows == len(failing)
    assert done.failures.permanent >= sum(one.ending in PERMANENT for one in failing)


@pytest.mark.parametrize("one", STOPPING, ids=lambda one: one.name)
def test_what_holds_for_every_request_stops_both(new_run: Callable[..., RunFolder], one: Kind) -> None:
    with serving_beside(played([one])) as server:
        run = run_of(new_run, server.url, [one], "own")
        with pytest.raises(UserError, match="Stopped, since every request would fail") as error:
            judge(run)
        assert KEY not in str(error.value)
        assert not run.table_path("verdicts").exists()
        change(run, Options(judges=("rules",)))
        judge(run)
        with pytest.raises(UserError, match="Stopped, since every request would fail"):
            repair(run)
    assert not run.table_path("repairs").exists()


@pytest.mark.parametrize(
    ("stage", "judges", "how"), [("judge", "own", "unscored"), ("repair", "rules", "left as they were")]
)
def test_a_share_that_is_refused_for_good_is_gone_on_without(
    new_run: Callable[..., RunFolder], stage: str, judges: str, how: str
) -> None:
    flagged = Kind("", "", (refused(403, "input was flagged"),), FOR_GOOD)
    kinds = [FINE] * 18 + [flagged]
    with serving_beside(played(kinds)) as server:
        run = run_of(new_run, server.url, kinds, judges)
        if stage == "repair":
            judge(run)
        command = ["--runs", str(run.path.parent), stage, run.name]
        done = CliRunner().invoke(app, [*command, "--max-failed", "5%"])
        assert done.exit_code == 0, done.output
        assert f"1 of 20 are refused for good and {how} (HTTP 403: input was flagged)" in done.output
        asked = len(server.bodies)
        strict = CliRunner().invoke(app, [*command, "--max-failed", "0"])
        assert "5.0%, more than the 0.0% of --max-failed" in str(strict.exception)
        assert f"saferthoughts {stage} new" in str(strict.exception)
        assert len(server.bodies) == asked, "what is refused for good is not sent again"
