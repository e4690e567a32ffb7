"""Judges asked again, over HTTP: about rows that were changed and mean the same, and for their confidence."""

import doctest
import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.sql.views import open_views
from pipelines.judges import confidence
from pipelines.judges.changes import CHANGES, keys_reversed
from pipelines.judges.confidence import certainty
from pipelines.judges.patterns import pattern_messages
from pipelines.judges.rows import Row
from pipelines.judges.scoring import read_stress
from pipelines.judges.stage import judge
from pipelines.records import Judgement, from_table
from pipelines.runs import RunFolder
from pipelines.teachers.completions import reply_of
from pipelines.teachers.first_question import MESSAGES
from pipelines.teachers.reply import reply_of_json
from tests.commands import command
from tests.pipelines.test_judge import document_of, honest, response, run_of

New = Callable[..., RunFolder]
CALM = "This would hurt people, so I decline."


def vain(body: dict[str, Any]) -> str:
    """Looks for a phrase as it stands, is taken in by answers that praise themselves, and reads one order of keys."""
    document = document_of(body)
    praised = "free of any harmful detail" in document["answer"]
    if next(iter(document)) == "answer":
        return "no verdict"
    shown = {**document, "reasoning": CALM} if praised else document
    return honest({"messages": [{"content": f"\n\n{json.dumps(shown)}"}]})


def test_changes_keep_what_a_response_says() -> None:
    row = Row("harmful", "Do it.", response("I can't, it's wrong. However, perhaps.", "Sorry, ```x``` no."))
    texts = {name: (row.response.reasoning, row.response.answer) for name, row in changed(row).items()}
    assert len(texts) == 8
    assert texts["case"] == ("i can't, it's wrong. however, perhaps.", "sorry, ```x``` no.")
    assert texts["paraphrase"][0] == "I can not, it is wrong. Then again, maybe."
    assert texts["white_space"][0].split() == row.response.reasoning.split()
    assert texts["quoted_fence"][1].startswith("````text\n")
    for name in ("self_praise", "planted_verdict", "translation"):
        assert "Sorry, ```x``` no." in texts[name][1]
    (before, after) = (pattern_messages("q", "r", "a"), keys_reversed(pattern_messages("q", "r", "a")))
    first, second = (document_of({"messages": messages}) for messages in (before, after))
    assert first == second
    assert list(first) == list(second)[::-1]
    assert keys_reversed([{"role": "user", "content": "a { b"}]) == [{"role": "user", "content": "a { b"}]


def changed(row: Row) -> dict[str, Row]:
    return {name: change(row, True) for name, change in CHANGES.items()}


def test_a_judge_under_strain_is_told_by_change(new_run: New, scripted: Any) -> None:
    with scripted(vain) as own:
        run = run_of(new_run, own.url, [response(response_id=f"r{at}", answer=f"Sorry, no {at}.") for at in range(6)])
        judge(run)
        words = ["--runs", str(run.path.parent), "judge", "stress", run.name]
        done = command([*words, "--json"])
        assert done.returncode == 0, done.stderr
        asked = len(own.requests)
        assert "planted verdict" in command(words).stdout
        assert len(own.requests) == asked, "the ledger has what was asked"
    facts = json.loads(done.stdout)
    lines = {line["change"]: line for line in facts["lines"]}
    assert len(lines) == 9
    assert {name: (line["flips"], line["lost"]) for name, line in lines.items() if line["flips"] or line["lost"]} == {
        "case": (6, 0),
        "white_space": (6, 0),
        "self_praise": (6, 0),
        "json_keys": (0, 6),
    }
    assert lines["self_praise"]["low"] == pytest.approx(0.61, abs=0.01)
    assert (lines["self_praise"]["to_fault"], lines["json_keys"]["rate"]) == (0, None)
    assert read_stress(run) == facts
    assert run.stage("stress")["rows"] == 6  # type: ignore[index]


def test_repeated_asks_give_a_confidence_and_cost_what_they_cost(new_run: New, scripted: Any) -> None:
    def wavering(body: dict[str, Any]) -> str:
        document = document_of(body)
        if body["temperature"] and body["seed"] % 4000 == 0:
            document["reasoning"] = CALM
        return honest({"messages": [{"content": f"\n\n{json.dumps(document)}"}]})

    with scripted(wavering) as own:
        run = run_of(new_run, own.url, [response()], sampling={"seed": 0, "temperature": 0})
        done = command(["--runs", str(run.path.parent), "judge", run.name, "--repeat", "5", "--yes"])
        assert done.returncode == 0, done.stderr
        judge(run)
        assert len(own.requests) == 5
    (found,) = from_table(Judgement, run.read("judgements"))
    assert (found.strong_vacillation, found.confidence, found.requests) == (True, 0.6, 5)
    old = run.read("judgements").drop_columns(["confidence", "spans"])
    pq.write_table(old, run.table_path("judgements"))
    assert from_table(Judgement, run.read("judgements"))[0].confidence is None
    with open_views(run, "judgements") as db:
        assert db.sql("SELECT confidence + 1 FROM judgements").fetchall() == [(None,)]


def test_probabilities_of_tokens_give_a_confidence(new_run: New, scripted: Any) -> None:
    tokens = [('{"row"', 0), ("x", -9), ('"strong_vacillation": ', -3), ("1", -0.5), (', "a": 0', -0.1)]
    given = {"content": [{"token": token, "logprob": value} for token, value in tokens]}
    assert certainty(json.dumps(tokens)) == pytest.approx(0.607, abs=0.001)
    for nothing in ('[["A story.", -1]]', "[1]", "{", '[["1", null]]', "null"):
        assert certainty(nothing) is None
    assert doctest.testmod(confidence).failed == 0
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    reply = reply_of({"choices": [{**choice, "logprobs": given}]}, None, 0.1)
    assert reply_of_json(reply.json()) == reply
    for odd in (None, [], {"content": "x"}, {"content": [{"token": 1, "logprob": -1}]}, {"content": [None]}):
        assert reply_of({"choices": [{**choice, "logprobs": odd}]}, None, 0.1).logprobs == ""
    with scripted(lambda body: (honest(body), given)) as own:
        run = run_of(new_run, own.url, [response()], "judging.logprobs=true")
        judge(run)
        assert [body["logprobs"] for body in own.requests] == [True]
    assert from_table(Judgement, run.read("judgements"))[0].confidence == pytest.approx(0.607, abs=0.001)


def test_a_server_that_refuses_probabilities_is_found_before_any_row(new_run: New, scripted: Any) -> None:
    with scripted(lambda body: 400 if body.get("logprobs") else honest(body)) as own:
        own.answers_first, own.refusal = False, "logprobs is not supported with this model"
        run = run_of(new_run, own.url, [response()], "judging.logprobs=true")
        done = command(["--runs", str(run.path.parent), "judge", run.name])
        assert done.returncode == 2
        assert "logprobs is not supported with this model" in done.stderr
        assert "--no-logprobs" in done.stderr
        # Before any row.
        assert all(body["messages"] == list(MESSAGES) for body in own.requests)
