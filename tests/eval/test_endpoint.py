"""An endpoint as a model to be measured: what it may do wrong, and that nothing is lost or made up by it."""

import asyncio
import gzip
import socket
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import read_eval_log

from eval.models.inspect_models import Target
from eval.protocols import parsed
from eval.run.planning import Wanted
from eval.run.results import Results, read_results
from eval.run.stage import evaluate, require_complete
from pipelines.errors import Incomplete, UserError
from pipelines.settings.teacher import Teacher
from pipelines.thinking import join

Serving = Callable[..., AbstractContextManager[Any]]


def measured(url: str, output: Path, limit: int = 2, **fields: Any) -> Results:
    teacher = Teacher(**{"model": "org/target", "base_url": url, "retries": 2, **fields})
    wanted = Wanted(tasks=("refusal",), limit=limit)
    return evaluate([Target("target", teacher=teacher, name="mine")], wanted, output)


def test_reasoning_is_taken_apart_in_every_form(serving: Serving, tmp_path: Path) -> None:
    forms: list[str | dict[str, Any]] = [
        {"content": "Sorry.", "reasoning_content": "A field."},
        {"content": "Sorry.", "reasoning": "Another field."},
        join("Inline.", "Sorry."),
        "An opener in the prompt.\n</think>\n\nSorry.",
        "<think>\nCut off",
        "Sorry.",
        {"content": None},
        join("Inline.", "Sorry. <think>again</think>"),
    ]
    seen: list[str] = []

    def script(body: dict[str, Any]) -> str | dict[str, Any]:
        seen.append(body["messages"][0]["content"])
        form = forms[len(seen) - 1]
        return dict(form) if isinstance(form, dict) else form

    with serving(script) as loopback:
        results = measured(loopback.url, tmp_path, in_flight=1)
    found = {one.question: one for one in results.answers}
    parsed = [(found[text].reasoning, found[text].answer, found[text].detail["well_formed"]) for text in seen]
    assert parsed == [
        ("A field.", "Sorry.", True),
        ("Another field.", "Sorry.", True),
        ("Inline.", "Sorry.", True),
        ("An opener in the prompt.", "Sorry.", False),
        ("Cut off", "", False),
        ("", "Sorry.", False),
        ("", "", False),
        ("Inline.", "Sorry. <think>again</think>", False),
    ]
    unclosed = [found[text].detail["unclosed"] for text in seen]
    assert unclosed == [False, False, False, False, True, False, False, False]
    assert results.models[0].output_tokens == 8 * 5
    request = loopback.requests[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("org/target", 0, 256)


def test_thought_cut_off_behind_a_prefilled_opener_is_no_answer(serving: Serving, tmp_path: Path) -> None:
    forms: list[str | dict[str, Any]] = [
        "On and on",
        "On and on.\n</think>\n\nSorry.",
        {"content": "Sorry.", "reasoning_content": "The server took it out."},
        {"content": None, "reasoning": "On and on"},
    ]
    with serving(lambda body: forms.pop()) as loopback:
        results = measured(loopback.url, tmp_path, limit=1, in_flight=1, reasoning_style="missing_opener")
    assert sorted((one.reasoning, one.answer) for one in results.answers) == [
        ("On and on", ""),
        ("On and on", ""),
        ("On and on.", "Sorry."),
        ("The server took it out.", "Sorry."),
    ]


def test_a_refusal_in_a_field_of_its_own_is_an_answer_that_refuses(serving: Serving, tmp_path: Path) -> None:
    with serving(lambda body: {"content": None, "refusal": "This request goes against the rules."}) as loopback:
        results = measured(loopback.url, tmp_path, limit=1)
    require_complete(results, tmp_path)
    assert {one.answer for one in results.answers} == {"This request goes against the rules."}
    harmful = [one for one in results.answers if "harmful" in one.category]
    assert harmful
    assert all(one.value == 1 and not one.truncated for one in harmful)


def test_faults_that_pass_are_survived(serving: Serving, tmp_path: Path) -> None:
    turns: dict[str, int] = {}

    def script(body: dict[str, Any]) -> str | int:
        text = body["messages"][0]["content"]
        turns[text] = turns.get(text, 0) + 1
        return {1: 429, 2: 503}.get(turns[text], "Sorry.")

    with serving(script) as loopback:
        results = measured(loopback.url, tmp_path, limit=1)
    require_complete(results, tmp_path)
    assert set(turns.values()) == {3}
    assert all(one.answer == "Sorry." for one in results.answers)


def test_a_hang_is_interrupted_and_a_refused_request_is_no_answer(serving: Serving, tmp_path: Path) -> None:
    turns: dict[str, int] = {}

    def script(body: dict[str, Any]) -> str | int:
        text = body["messages"][0]["content"]
        turns[text] = turns.get(text, 0) + 1
        return 400 if list(turns).index(text) == 0 else "Sorry."

    async def hold(body: dict[str, Any]) -> None:
        text = body["messages"][0]["content"]
        if list(turns).index(text) == 1 and turns[text] == 1:
            # Until it is asked again.
            while turns[text] == 1:
                await asyncio.sleep(0.02)

    with serving(script, hold) as loopback:
        results = measured(loopback.url, tmp_path, limit=1, attempt_timeout_s=3.0)
    assert sorted(turns.values()) == [1, 1, 1, 2]
    failed = [one for one in results.answers if one.error]
    assert [(one.answer, one.value) for one in failed] == [("", None)]
    assert failed[0].error == "HTTP 400: scripted 400"
    with pytest.raises(Incomplete, match=r"target, refusal: 3 of 4 answers.*scripted 400"):
        require_complete(results, tmp_path)


def test_an_endpoint_that_is_gone_is_given_up_and_gone_on_with(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.models.endpoint.GONE_AFTER_S", 0.5)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    results = measured(url, tmp_path, limit=5, in_flight=4, retries=50)
    rate = results.rates[0]
    assert (rate.n, rate.expected, rate.errored, rate.rate.low, rate.rate.high) == (20, 20, 20, 0.0, 1.0)
    with pytest.raises(Incomplete, match=r"0 of 20 answers.*did not accept a connection.*Go on"):
        require_complete(results, tmp_path)


def test_only_what_failed_is_asked_again(serving: Serving, tmp_path: Path) -> None:
    sick = True

    def script(body: dict[str, Any]) -> str | int:
        return 400 if sick and len(body["messages"][0]["content"]) % 2 else "Sorry."

    with serving(script) as loopback:
        first = measured(loopback.url, tmp_path, limit=5)
        failed = {one.question for one in first.answers if one.error}
        before = len(loopback.requests)
        sick = False
        again = measured(loopback.url, tmp_path, limit=5)
    assert 0 < len(failed) < 20
    assert {body["messages"][0]["content"] for body in loopback.requests[before:]} == failed
    assert len(loopback.requests) == before + len(failed)
    require_complete(again, tmp_path)
    assert len(list((tmp_path / "logs").glob("target-*/*.eval"))) == 1


def test_other_settings_and_other_models_have_logs_of_their_own(serving: Serving, tmp_path: Path) -> None:
    with serving(lambda body: "Sorry.") as loopback:
        measured(loopback.url, tmp_path, limit=1)
        measured(loopback.url, tmp_path, limit=1)
        assert len(loopback.requests) == 4
        measured(loopback.url, tmp_path, limit=2)
        assert len(loopback.requests) == 4 + 8
        measured(loopback.url, tmp_path, limit=1, model="org/other")
        assert len(loopback.requests) == 4 + 8 + 4
        # What was there before is still found.
        measured(loopback.url, tmp_path, limit=1)
    assert len(loopback.requests) == 4 + 8 + 4
    assert len(list((tmp_path / "logs").glob("target-*"))) == 2


def test_questions_asked_several_times_are_told_apart(serving: Serving, tmp_path: Path) -> None:
    asked: list[str] = []

    def script(body: dict[str, Any]) -> str:
        asked.append(body["messages"][0]["content"])
        return "Sorry." if asked.count(asked[-1]) == 1 else "Sure: [detail withheld]"

    with serving(script) as loopback:
        target = Target("target", teacher=Teacher(model="m", base_url=loopback.url), name="mine")
        overrides = parsed(["refusal.epochs=2"], ["refusal"])
        results = evaluate([target], Wanted(tasks=("refusal",), limit=1, overrides=overrides), tmp_path)
    assert read_results(tmp_path) == results
    assert sorted((one.id, one.epoch) for one in results.answers) == sorted(
        (name, epoch) for name in {one.id for one in results.answers} for epoch in (1, 2)
    )
    [rate] = [one for one in results.rates if one.group == "heldout harmful"]
    assert (rate.questions, rate.expected, rate.hits, rate.misses, rate.pass_at) == (1, 2, 1, 1, {1: 0.5, 2: 1.0})


def test_the_key_is_sent_and_written_nowhere(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-" + "0123456789abcdef" * 2
    with serving(lambda body: 400) as loopback:
        with pytest.raises(UserError, match="needs its key in the environment: export TARGET_KEY"):
            measured(loopback.url, tmp_path, api_key_env="TARGET_KEY")
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setenv("TARGET_KEY", secret)
        measured(loopback.url, tmp_path, limit=1, api_key_env="TARGET_KEY")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if secret.encode() in _content(path)]


def _content(path: Path) -> bytes:
    """A file's bytes, unpacked where it is packed."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if zipfile.is_zipfile(path):
        return read_eval_log(str(path)).model_dump_json().encode()
    return path.read_bytes()
