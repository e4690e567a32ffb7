"""Every kind of answer, played over a socket to whoever asks: each ends as docs/replies.md says, and none hangs.

`python -m tests.pipelines.test_replies` writes the table of that page anew.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tenacity
from inspect_ai.model import GenerateConfig, ModelOutput, get_model

from eval.models.endpoint import EndpointAPI, EndpointGone, RequestRefused
from pipelines.errors import UserError
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import Patience, TeacherClient, TeacherError
from pipelines.teachers.finish_reasons import cut_short
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.limits import RateLimits
from pipelines.teachers.probe import Probe, ask_all
from pipelines.teachers.replies import HttpAnswer, ReplyFailure, read_answer
from pipelines.teachers.reply import Reply
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
    Kind,
    good,
    refused,
)
from tests.pipelines.reply_kinds import KINDS, table
from tests.pipelines.reply_server import serving

PAGE = Path(__file__).parents[2] / "docs" / "replies.md"
BY_NAME = {f"{one.group}: {one.name}": one for one in KINDS}
RETRIES = 1
QUESTION: Any = [{"role": "user", "content": "How long?"}]

pytestmark = pytest.mark.usefixtures("at_once")


# What servers say, in their own shapes, with how it ends.
WORDS = [
    ("fatal", 429, {"error": {"message": "You have no credits remaining", "code": "credit_balance_exhausted"}}),
    ("fatal", 403, {"code": "denied", "error": "Your team doesn't have any credits yet"}),
    ("fatal", 429, {"code": "exhausted", "error": "Your team has used all available credits"}),
    ("fatal", 403, {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "denied"}),
    ("fatal", 403, {"error": {"message": "This method requires billing to be enabled.", "code": 403}}),
    ("fatal", 400, {"error": {"message": "Budget has been exceeded! Max budget: 1", "type": "budget_exceeded"}}),
    ("fatal", 403, {"error": {"message": "You've reached your spending limit"}}),
    ("fatal", 429, {"message": "A trial key is limited to 1000 API calls / month."}),
    ("fatal", 403, {"error": {"message": "\u8be5\u4ee4\u724c\u989d\u5ea6\u5df2\u7528\u5c3d"}}),
    ("fatal", 200, {"error_code": 17, "error_msg": "Open api daily request limit reached"}),
    ("rate", 200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}),
    ("rate", 429, {"message": "A trial key is limited to 20 API calls / minute."}),
    ("row", 200, {"error_code": 336104, "error_msg": "user input prompt is sensitive"}),
    ("row", 400, {"error": {"code": "SensitiveContentDetected", "message": "The request failed"}}),
    ("row", 400, {"error": {"message": "Request blocked by guardrail"}}),
    ("row", 403, {"error": {"message": "This content violates our terms of service", "code": 403}}),
    ("malformed", 400, {"error": {"message": "The budget of thoughts exceeds max_tokens"}}),
    ("retry", 503, {"error": {"message": "Down. Your credits are kept; no credits are taken."}}),
]


@pytest.mark.parametrize(("ends", "status", "body"), WORDS)
def test_an_error_is_what_its_words_and_codes_say(ends: str, status: int, body: dict[str, Any]) -> None:
    with pytest.raises(ReplyFailure) as failure:
        read_answer(HttpAnswer(status, {}, json.dumps(body).encode()), None, 0.1)
    assert failure.value.kind == ends


def named(body: dict[str, Any]) -> Kind:
    """The kind that a request's model names."""
    return BY_NAME[body["model"]]


def entry(name: str, url: str, **fields: Any) -> Teacher:
    kind = BY_NAME.get(name)
    values = {"model": name, "base_url": url, "api_key_env": "A_KEY", "retries": RETRIES, "attempt_timeout_s": 60}
    return Teacher.model_validate({**values, **(kind.fields if kind else {}), **fields})


def tables_differ(found: dict[str, str], wanted: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}


async def each(play: Any) -> dict[str, Any]:
    """Every kind's outcome, a few at a time."""
    free = asyncio.Semaphore(16)

    async def one(name: str) -> Any:
        async with free:
            return await asyncio.wait_for(play(name), 120)

    return dict(zip(BY_NAME, await asyncio.gather(*map(one, BY_NAME)), strict=True))


async def asked(name: str, url: str) -> Reply | TeacherError:
    teacher = entry(name, url)
    async with TeacherClient("t", teacher, teacher.urls) as client:
        try:
            return await client.ask(QUESTION, {"max_tokens": 100})
        except TeacherError as failure:
            return failure


def ending_of(outcome: Reply | TeacherError, requests: int) -> str:
    if isinstance(outcome, Reply):
        return (CUT if cut_short(outcome.finish_reason) else KEPT).ask
    assert outcome.transient == (not outcome.fatal and not outcome.permanent)
    if outcome.fatal:
        return STOPS.ask
    if outcome.refused:
        return (TOO_LONG if outcome.permanent else MALFORMED).ask
    if outcome.permanent:
        return FOR_GOOD.ask
    if requests == 1:
        return SUSPECT.ask
    status = outcome.status == 429 or "rate limit" in str(outcome).lower()
    return (WAITED if status else RETRIED).ask


def test_there_are_kinds_enough_and_none_twice() -> None:
    assert len(KINDS) >= 80
    assert len(BY_NAME) == len(KINDS)


def test_page_has_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(table())


def test_generation_and_judging_end_as_the_table_says(tmp_path: Path) -> None:
    async def play() -> tuple[dict[str, Reply | TeacherError], Counter[str]]:
        async with serving(named) as server:
            return await each(lambda name: asked(name, server.url)), server.asked

    outcomes, requests = asyncio.run(play())
    found = {name: ending_of(outcome, requests[name]) for name, outcome in outcomes.items()}
    assert tables_differ(found, {name: one.ending.ask for name, one in BY_NAME.items()}) == {}
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for name, outcome in outcomes.items():
        one = BY_NAME[name]
        if isinstance(outcome, Reply):
            held = {field: getattr(outcome, field) for field in one.holds}
            assert held == dict(one.holds), name
            assert all(
                type(count) is int and 0 <= count < 2**53 for count in (outcome.input_tokens, outcome.output_tokens)
            )
            ledger.put(name, "m", outcome)
            assert ledger.get(name) == outcome, name
        else:
            words = str(outcome)
            assert one.holds.get("words", "") in words, name
            assert len(words) < 400, name
            assert words.isprintable(), name
            assert KEY not in words
        if one.plays[0] is None:
            continue  # a busy machine may use up the time of a hang before the server has read the request
        again = one.ending in (RETRIED, WAITED)
        assert requests[name] == (len(one.plays) if one.ending is KEPT else 1 + RETRIES * again), name
    assert ledger.totals().answers == sum(isinstance(one, Reply) for one in outcomes.values())


def test_evaluation_ends_as_the_table_says() -> None:
    async def evaluated(name: str, url: str) -> str:
        patience = {"attempt_timeout_s": 60, **BY_NAME[name].fields}
        config = GenerateConfig(max_retries=RETRIES, max_connections=4)
        model = get_model(f"endpoint/{name}", base_url=url, api_key=KEY, memoize=False, config=config, **patience)
        assert isinstance(model.api, EndpointAPI)
        try:
            output = await model.generate("How long?")
        except EndpointGone:
            return STOPS.eval if model.api.gone else "not given up"
        except RequestRefused as error:
            if KEY in str(error):
                return "the key is told"
            return SUSPECT.eval if model.api.suspects else MALFORMED.eval
        except Exception as error:  # noqa: BLE001 - Inspect's own, after the last attempt
            return f"{type(error).__name__}: asked again"
        finally:
            await model.api.aclose()
        return _answer(output)

    def _answer(output: ModelOutput) -> str:
        return CUT.eval if cut_short(str(output.stop_reason)) else KEPT.eval

    async def play() -> tuple[dict[str, str], Counter[str]]:
        async with serving(named) as server:
            return await each(lambda name: evaluated(name, server.url)), server.asked

    outcomes, requests = asyncio.run(play())
    wanted = {name: one.ending.eval for name, one in BY_NAME.items()}
    for name, outcome in outcomes.items():
        if outcome.endswith("asked again"):
            hangs = BY_NAME[name].plays[0] is None
            assert requests[name] == 1 + RETRIES or hangs, (name, outcome)
            outcomes[name] = WAITED.eval if wanted[name] == WAITED.eval else RETRIED.eval
    assert tables_differ(outcomes, wanted) == {}


def test_a_test_of_a_teacher_ends_as_the_table_says() -> None:
    async def tested(name: str, url: str) -> str:
        teacher = entry(name, url)
        try:
            [found] = await ask_all("t", teacher, teacher.urls)
        except UserError as error:
            return RETRIED.test if str(error).isprintable() and KEY not in str(error) else "a bad line"
        assert isinstance(found, Probe)
        return CUT.test if found.hint else KEPT.test

    async def play() -> dict[str, str]:
        # Its own patience is one attempt: what is answered the second time is told as a failure.
        async with serving(named) as server:
            return await each(lambda name: tested(name, server.url))

    outcomes = asyncio.run(play())
    wanted = {name: one.ending.test for name, one in BY_NAME.items()}
    second = {name for name, one in BY_NAME.items() if name.endswith("then an answer") and one.group == "a status"}
    assert len(second) == 2
    assert tables_differ(outcomes, wanted | dict.fromkeys(second, RETRIED.test)) == {}


def test_refusals_of_everything_stop_the_run_and_of_one_input_do_not() -> None:
    forbidden = Kind("", "", (refused(403),), SUSPECT)
    mixed = Kind("", "", (good(), refused(403)), SUSPECT)

    async def play() -> tuple[list[TeacherError], TeacherError]:
        async with serving(lambda body: {"all": forbidden, "one": mixed}[body["model"]]) as server:
            failures = []
            async with TeacherClient("t", entry("all", server.url), [server.url]) as client:
                for _ in range(5):
                    with pytest.raises(TeacherError) as refusal:
                        await client.ask(QUESTION, {})
                    failures.append(refusal.value)
            async with TeacherClient("t", entry("one", server.url), [server.url]) as client:
                await client.ask(QUESTION, {})
                for _ in range(6):
                    with pytest.raises(TeacherError) as refusal:
                        await client.ask(QUESTION, {})
            return failures, refusal.value

    failures, last = asyncio.run(play())
    assert [one.fatal for one in failures] == [False] * 4 + [True]
    # What may be a wrong key is not held against the inputs.
    assert [one.permanent for one in failures] == [False] * 5
    assert (last.fatal, last.permanent) == (False, True)


def test_a_rate_limit_holds_back_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.teachers.waits.LONGEST_S", 60.0)
    limits = tuple([refused(429, headers=("Retry-After: 0.2",))] * 8 + [good()] * 1)
    pauses: list[float | None] = []
    pause = RateLimits.pause

    def noted(limits: RateLimits, asked_s: float | None) -> None:
        pauses.append(asked_s)
        pause(limits, asked_s)

    monkeypatch.setattr(RateLimits, "pause", noted)

    async def play() -> list[Reply]:
        async with (
            serving(lambda body: Kind("", "", limits, WAITED)) as server,
            TeacherClient("t", entry("m", server.url, retries=8), [server.url]) as client,
        ):
            started = asyncio.get_running_loop().time()
            replies = await asyncio.gather(*(client.ask(QUESTION, {}) for _ in range(4)))
            assert asyncio.get_running_loop().time() - started >= 0.2
            return replies

    assert len(asyncio.run(play())) == 4
    assert pauses == [0.2] * 8


def test_a_rate_limit_costs_no_attempt_while_others_are_answered() -> None:
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.set_exception((ReplyFailure, ReplyFailure("rate", "slow down"), None))

    async def play() -> list[bool]:
        async with TeacherClient(
            "t", entry("m", "http://127.0.0.1:9/v1", retries=1), ["http://127.0.0.1:9/v1"]
        ) as client:
            patience = Patience(client)
            stopped = []
            for _ in range(5):
                client.limits.answers += 1
                stopped.append(patience.stop(state))
            return [*stopped, patience.stop(state), patience.stop(state)]

    assert asyncio.run(play()) == [False] * 6 + [True]


def test_a_server_that_does_not_stream_is_asked_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.teachers.client.is_loopback", lambda host: False)
    plays = (refused(400, "stream is not supported"), refused(400, "stream is not supported"), good())

    async def play() -> tuple[list[dict[str, Any]], Reply]:
        async with serving(lambda body: Kind("", "", plays, KEPT)) as server:
            async with TeacherClient("t", entry("m", server.url), [server.url]) as client:
                assert not client.streams({"max_tokens": 4095})
                assert client.streams({})
                reply = await client.ask(QUESTION, {"max_tokens": 4096})
                await client.ask(QUESTION, {"max_tokens": 4096})
            return server.bodies, reply

    bodies, reply = asyncio.run(play())
    sent = [(body.get("stream", False), "stream_options" in body) for body in bodies]
    assert sent == [(True, True), (True, False), (False, False), (False, False)]
    assert reply.first_token_s is None


def test_time_to_first_token_is_kept() -> None:
    async def play() -> Any:
        async with serving(named) as server:
            return await asked("a stream: whole", server.url)

    reply = asyncio.run(play())
    assert 0 < reply.first_token_s <= reply.latency_s


if __name__ == "__main__":
    head = PAGE.read_text(encoding="utf-8").split("\n## ")[0]
    PAGE.write_text(head.rstrip("\n") + "\n" + table(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
