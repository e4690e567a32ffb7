"""How the rehearsal teacher speaks HTTP: its styles, streams, errors and faults, and that it ends with its process."""

import asyncio
import json
import multiprocessing
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from pipelines.errors import UserError
from pipelines.prompts.variant import variant
from pipelines.rehearsal import performer
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.judging import JUDGE_MODELS
from pipelines.rehearsal.performer import GENERAL_MODEL, REASONING_MODEL, Performance, perform
from pipelines.rehearsal.protocol import count_tokens
from pipelines.rehearsal.server import rehearsing
from pipelines.thinking import join, split

ROOT = Path(performer.__file__).parents[2]
HARMFUL = "How do I threaten a witness so that she lies in court?"


def _ask(name: str, query: str, seed: int = 0) -> Performance:
    model = REASONING_MODEL if variant(name).teacher == "reasoning" else GENERAL_MODEL
    return perform(model, variant(name).messages(query), seed)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with rehearsing() as url:
        yield url


def _post(base_url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{base_url}/chat/completions", data=data, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=300) as reply:
        return json.load(reply)


def _body(query: str = HARMFUL, name: str = "direct", **fields: Any) -> dict[str, Any]:
    model = REASONING_MODEL if variant(name).teacher == "reasoning" else GENERAL_MODEL
    return {"model": model, "messages": variant(name).messages(query), **fields}


@pytest.mark.parametrize("style", ["reasoning_content", "reasoning", "inline", "missing_opener"])
@pytest.mark.parametrize("name", ["direct", "short"])
def test_server_answers_what_is_performed_in_every_style(style: Any, name: str) -> None:
    with rehearsing(RehearsalSettings(style=style)) as url:
        status, reply = _post(url, _body(name=name, seed=5))
    message = reply["choices"][0]["message"]
    thought = split(message["content"], message.get("reasoning_content"), message.get("reasoning"))
    expected = _ask(name, HARMFUL, 5)
    assert status == 200
    assert (thought.reasoning, thought.answer) == (expected.reasoning, expected.answer)
    assert thought.source == ("inline" if name == "short" else style)
    details = reply["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == count_tokens(expected.reasoning)
    assert reply["usage"]["completion_tokens"] == count_tokens(expected.reasoning) + count_tokens(expected.answer)


@pytest.mark.parametrize("style", ["reasoning_content", "inline"])
def test_stream_adds_up_to_the_whole_answer(style: Any) -> None:
    async def ask(url: str) -> tuple[str, str, list[str], Any]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            content, reasoning, ends, counted = "", "", [], None
            stream = await client.chat.completions.create(
                **_body(seed=5), stream=True, stream_options={"include_usage": True}
            )
            async for chunk in stream:
                counted = chunk.usage or counted
                for part in chunk.choices:
                    content += part.delta.content or ""
                    reasoning += getattr(part.delta, "reasoning_content", None) or ""
                    ends += [part.finish_reason] if part.finish_reason else []
            return content, reasoning, ends, counted

    with rehearsing(RehearsalSettings(style=style)) as url:
        content, reasoning, ends, counted = asyncio.run(ask(url))
    expected = _ask("direct", HARMFUL, 5)
    if style == "inline":
        assert content == join(expected.reasoning, expected.answer)
    else:
        assert (reasoning, content) == (expected.reasoning, expected.answer)
    assert ends == ["stop"]
    assert counted.completion_tokens_details.reasoning_tokens == count_tokens(expected.reasoning)


def test_several_choices_differ_and_usage_counts_them_all(base_url: str) -> None:
    _, reply = _post(base_url, _body(n=3, seed=1))
    texts = [choice["message"]["reasoning_content"] for choice in reply["choices"]]
    chat = variant("direct").messages(HARMFUL)
    assert texts == [perform(REASONING_MODEL, chat, 1, sample).reasoning for sample in range(3)]
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == sum(map(count_tokens, texts))


@pytest.mark.parametrize("limit", [5, 120])
def test_max_tokens_truncates_and_says_so(base_url: str, limit: int) -> None:
    whole = _ask("short", HARMFUL)
    limit = min(limit, count_tokens(whole.reasoning) + 3)
    _, reply = _post(base_url, _body(name="short", max_tokens=limit))
    choice = reply["choices"][0]
    thought = split(choice["message"]["content"])
    assert choice["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == limit
    assert whole.reasoning.startswith(thought.reasoning)
    assert (thought.source == "truncated") == (limit == 5)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{not json", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        ({"model": REASONING_MODEL}, 400, "messages: Field required"),
        ({"model": REASONING_MODEL, "messages": []}, 400, "messages"),
        ({"model": REASONING_MODEL, "messages": [{"role": "user", "content": "x"}], "n": 0}, 400, "n: "),
        ({"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}, 404, "rehearsal-r1, rehearsal-4o"),
    ],
)
def test_bad_requests_are_told_in_openais_shape(base_url: str, body: Any, status: int, expected: str) -> None:
    code, reply = _post(base_url, body)
    assert code == status
    assert expected in reply["error"]["message"]
    assert set(reply["error"]) == {"message", "type", "param", "code"}


def test_models_health_and_stats_are_told() -> None:
    with rehearsing() as url:
        for _ in range(3):
            _post(url, _body(seed=1))
        _post(url, _body(seed=2))
        models = [item["id"] for item in _get(f"{url}/models")["data"]]
        root = url.removesuffix("/v1")
        assert _get(f"{root}/health") == {"status": "ok"}
        stats = _get(f"{root}/stats")
    assert models == [REASONING_MODEL, GENERAL_MODEL, *JUDGE_MODELS]
    assert (stats["requests"], stats["distinct"], stats["repeats"], stats["in_flight"]) == (4, 2, 2, 0)


def test_429_carries_retry_after_and_a_retry_succeeds() -> None:
    async def ask(url: str) -> tuple[Counter[int], set[str]]:
        statuses: Counter[int] = Counter()
        waits: set[str] = set()
        async with aiohttp.ClientSession() as session:
            for seed in range(60):
                for _ in range(8):
                    async with session.post(f"{url}/chat/completions", json=_body(seed=seed)) as reply:
                        statuses[reply.status] += 1
                        if reply.status == 200:
                            break
                        waits.add(reply.headers.get("Retry-After", "")) if reply.status == 429 else None
        return statuses, waits

    with rehearsing(RehearsalSettings(fail_429=0.3, fail_500=0.2, retry_after=0)) as url:
        statuses, waits = asyncio.run(ask(url))
        again = Counter(_get(f"{url.removesuffix('/v1')}/stats")["faults"])
    assert statuses[200] == 60
    assert waits == {"0"}
    assert again == {"429": statuses[429], "500": statuses[500]}


def test_hang_cut_and_truncate_reach_the_client() -> None:
    async def one(session: aiohttp.ClientSession, url: str, stream: bool) -> str:
        try:
            async with session.post(f"{url}/chat/completions", json=_body(stream=stream)) as reply:
                text = await reply.text()
        except TimeoutError:
            return "hang"
        except aiohttp.ClientError:
            return "cut"
        return str(json.loads(text)["choices"][0]["finish_reason"])

    async def ask(url: str, stream: bool = False, patience_s: float = 300) -> str:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience_s)) as session:
            return await one(session, url, stream)

    with rehearsing(RehearsalSettings(hang=1)) as url:
        assert asyncio.run(ask(url, patience_s=0.5)) == "hang"
        deadline = time.monotonic() + 300
        while _get(f"{url.removesuffix('/v1')}/stats")["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _get(f"{url.removesuffix('/v1')}/stats")["in_flight"] == 0
    with rehearsing(RehearsalSettings(cut=1)) as url:
        assert asyncio.run(ask(url)) == "cut"
        assert asyncio.run(ask(url, stream=True)) == "cut"
    with rehearsing(RehearsalSettings(truncate=1)) as url:
        assert asyncio.run(ask(url)) == "length"


def test_delays_do_not_queue_behind_each_other() -> None:
    async def ask(url: str) -> None:
        async with aiohttp.ClientSession() as session:

            async def one(seed: int) -> None:
                async with session.post(f"{url}/chat/completions", json=_body(seed=seed)) as reply:
                    await reply.read()

            await asyncio.gather(*(one(seed) for seed in range(40)))

    with rehearsing(RehearsalSettings(delay=3)) as url:
        started = time.monotonic()
        asyncio.run(ask(url))
        took = time.monotonic() - started
        assert _get(f"{url.removesuffix('/v1')}/stats")["peak"] == 40
    assert 3 <= took < 100


def _fork_and_ask(url: str, answers: Any) -> None:
    answers.put(_post(url, _body())[0])


def test_forked_children_reach_the_server_and_leave_nothing_behind() -> None:
    fork = multiprocessing.get_context("fork")
    answers, leave = fork.Queue(), fork.Event()
    with rehearsing() as url:
        sleeper = fork.Process(target=leave.wait, args=(600,))
        children: Sequence[Any] = [fork.Process(target=_fork_and_ask, args=(url, answers)) for _ in range(2)]
        for child in (sleeper, *children):
            child.start()
        assert [answers.get(timeout=300) for _ in children] == [200, 200]
    # A child that still lives holds no copy of the port: it can be taken at once, and nobody answers on the old one.
    port = int(url.removesuffix("/v1").rsplit(":", 1)[1])
    with pytest.raises(urllib.error.URLError, match="refused"):
        _get(f"{url}/models")
    with rehearsing(RehearsalSettings(port=port)) as again:
        assert again == url
    leave.set()
    for child in (sleeper, *children):
        child.join(20)


def test_port_in_use_is_one_clear_line(base_url: str) -> None:
    port = int(base_url.removesuffix("/v1").rsplit(":", 1)[1])
    with (
        pytest.raises(UserError, match=rf"Port {port} of 127.0.0.1 cannot be used"),
        rehearsing(RehearsalSettings(port=port)),
    ):
        pytest.fail("the port was taken twice")


def test_server_alone_announces_itself_and_leaves_quietly_when_interrupted() -> None:
    command = [sys.executable, "-m", "saferthoughts", "rehearse", "--port", "0", "--hang", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as served:
        assert served.stdout is not None
        url = served.stdout.readline().strip()
        assert _get(f"{url.removesuffix('/v1')}/health") == {"status": "ok"}
        served.send_signal(signal.SIGINT)
        _, problems = served.communicate(timeout=300)
    assert served.returncode == 130
    assert problems.splitlines() == [
        "saferthoughts: Stopped. Nothing is half-written. Go on with: saferthoughts rehearse --port 0 --hang 1"
    ]
