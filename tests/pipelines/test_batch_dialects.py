"""The Batch API as servers and gateways speak it: whatever form an answer has, it is read, or asked again and no more.

A server of our own plays each dialect over a socket for the first batch, and answers the following ones by the book.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from pipelines.generate.plan import Ask
from pipelines.runs import RunFolder
from pipelines.settings.teacher import Teacher
from pipelines.teachers.batch.stage import BatchOutcome, BatchRules, run_batches
from pipelines.teachers.batch.status import BatchStatus, read_status
from pipelines.teachers.ledger import Ledger

RULES = BatchRules(poll_s=0.01, longest_poll_s=0.05, settle_s=0.01, call_timeout_s=60)
COUNT = 4
Line = dict[str, Any]
# What a dialect makes of a batch of honest lines: the content of its files, and what its object says differently.
Dialect = Callable[[list[Line]], dict[str, Any]]


def completion(text: str) -> Line:
    message = {"role": "assistant", "content": text, "reasoning_content": "because"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def honest(keys: list[str]) -> list[Line]:
    return [
        {"custom_id": key, "response": {"status_code": 200, "body": completion(key)}, "error": None} for key in keys
    ]


def jsonl(lines: list[Line]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


class Provider:
    """The server: what was begun, and the dialect of the first batch."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.url = ""
        self.begun: list[list[str]] = []
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Line] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files/{id}/content", self._content),
            web.post("/v1/batches", self._begin),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{id}", self._one),
        ]

    async def _upload(self, request: web.Request) -> web.Response:
        upload: Any = (await request.post())["file"]
        name = f"up-{len(self._files)}"
        self._files[name] = upload.file.read()
        return web.json_response({"id": name, "object": "file"})

    async def _begin(self, request: web.Request) -> web.Response:
        asked = await request.json()
        keys = [json.loads(line)["custom_id"] for line in self._files[asked["input_file_id"]].splitlines()]
        self.begun.append(keys)
        name = f"batch-{len(self.begun)}"
        lines = honest(keys)
        made = self.dialect(lines) if len(self.begun) == 1 else {"output": jsonl(lines)}
        output = {
            "id": name, "object": "batch", "status": "completed", "created_at": 100, "completed_at": 160,
            "output_file_id": None, "error_file_id": None, "metadata": asked["metadata"],
            "request_counts": {"total": len(keys), "completed": len(keys), "failed": 0},
        }  # fmt: skip
        for kind in ("output", "error"):
            if kind in made:
                self._files[f"{name}-{kind}"] = made.pop(kind)
                output[f"{kind}_file_id"] = f"{name}-{kind}"
        self._batches[name] = output | made
        return web.json_response(self._batches[name])

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self._batches.values()), "has_more": False})

    async def _one(self, request: web.Request) -> web.Response:
        return web.json_response(self._batches[request.match_info["id"]])

    async def _content(self, request: web.Request) -> web.Response:
        content = self._files.get(request.match_info["id"])
        return web.Response(status=404) if content is None else web.Response(body=content)


@contextmanager
def providing(dialect: Dialect) -> Iterator[Provider]:
    provider = Provider(dialect)
    loop, ready, leave = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_routes(provider.routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await leave.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()


def asked(tmp_path: Path, provider: Provider) -> tuple[BatchOutcome, dict[str, str], list[tuple[str, int]]]:
    """Ask four questions; the outcome, the answers by key, and the failures."""
    run = RunFolder.create(tmp_path / "runs", "mine")
    teacher = Teacher(model="m", base_url=provider.url, transport="batch")
    keys = [f"{number:016x}" for number in range(COUNT)]
    asks = [Ask(key, key, "direct", "flags", "m", "{}", 0, key, ({"role": "user", "content": key},)) for key in keys]
    ledger = Ledger(run.path / "ledger.sqlite")
    try:
        done = run_batches(run, "flags", teacher, provider.url, asks, ledger, lambda: False, RULES)
        found = {key: reply for key in keys if (reply := ledger.get(key)) is not None}
        return done, {key: str(reply.content) for key, reply in found.items()}, ledger.failures()
    finally:
        ledger.close()


def changed(lines: list[Line], **changes: Any) -> list[Line]:
    """The first line with other values."""
    return [lines[0] | changes, *lines[1:]]


def with_response(lines: list[Line], **changes: Any) -> bytes:
    return jsonl(changed(lines, response=lines[0]["response"] | changes))


READ: dict[str, Dialect] = {
    "by the book": lambda lines: {"output": jsonl(lines)},
    "empty ids of files": lambda lines: {"output": jsonl(lines), "error_file_id": ""},
    "the same file twice": lambda lines: {"output": jsonl(lines), "error_file_id": "batch-1-output"},
    "blank lines": lambda lines: {"output": b"\n\r\n" + jsonl(lines).replace(b"\n", b"\n\n  \n")},
    "a mark of byte order": lambda lines: {"output": b"\xef\xbb\xbf" + jsonl(lines)},
    "CRLF": lambda lines: {"output": jsonl(lines).replace(b"\n", b"\r\n")},
    "no last line end": lambda lines: {"output": jsonl(lines).rstrip()},
    "status as text": lambda lines: {"output": with_response(lines, status_code="200")},
    "status as a float": lambda lines: {"output": with_response(lines, status_code=200.0)},
    "status left out": lambda lines: {"output": with_response(lines, status_code=None)},
    "status 201": lambda lines: {"output": with_response(lines, status_code=201)},
    "body as text": lambda lines: {"output": with_response(lines, body=json.dumps(lines[0]["response"]["body"]))},
    "status in capitals": lambda lines: {"output": jsonl(lines), "status": "COMPLETED"},
    "status ended": lambda lines: {"output": jsonl(lines), "status": "ended"},
    "status succeeded": lambda lines: {"output": jsonl(lines), "status": "Succeeded"},
    "failed after answers": lambda lines: {"output": jsonl(lines), "status": "failed"},
    "times as text": lambda lines: {"output": jsonl(lines), "created_at": "1700000000", "completed_at": "1700000060"},
    "times as dates": lambda lines: {
        "output": jsonl(lines),
        "created_at": "2026-01-01T00:00:00Z",
        "completed_at": "2026-01-01T00:01:00+00:00",
    },
    "no times": lambda lines: {"output": jsonl(lines), "created_at": None, "completed_at": ""},
    "no counts": lambda lines: {"output": jsonl(lines), "request_counts": None},
    "counts as text": lambda lines: {"output": jsonl(lines), "request_counts": {"total": "4", "completed": "4"}},
    "no metadata": lambda lines: {"output": jsonl(lines), "metadata": None},
    "answers in the error file": lambda lines: {"output": jsonl(lines[:2]), "error": jsonl(lines[2:])},
    "a request answered twice": lambda lines: {"output": jsonl([*lines, lines[0]])},
    "an error, then the answer": lambda lines: {
        "output": jsonl(lines),
        "error": jsonl([{"custom_id": lines[0]["custom_id"], "error": {"code": "x"}}]),
    },
    "the answer of somebody else": lambda lines: {"output": jsonl([*lines, {**lines[0], "custom_id": "foreign"}])},
    "NaN among its figures": lambda lines: {
        "output": jsonl(changed(lines, cost=float("nan"), response=lines[0]["response"] | {"latency": float("inf")}))
    },
}
AGAIN: dict[str, Dialect] = {
    "expired": lambda lines: {"output": jsonl(lines[:2]), "status": "expired", "expired_at": 170},
    "expired without a file": lambda lines: {"status": "EXPIRED"},
    "half answered": lambda lines: {"output": jsonl(lines[:2])},
    "no file at all": lambda lines: {"output_file_id": "", "error_file_id": ""},
    "a file that is gone": lambda lines: {"output_file_id": "nowhere"},
    "half a line": lambda lines: {"output": jsonl(lines)[:-40]},
    "garbage": lambda lines: {"output": b"<html>busy</html>\n\xff\xfe\x00"},
    "null": lambda lines: {"output": b"null\n[]\n3\n" + jsonl(lines[1:])},
    "no custom_id": lambda lines: {"output": jsonl([{"response": lines[0]["response"]}, *lines[1:]])},
    "response as a list": lambda lines: {"output": jsonl(changed(lines, response=[1]))},
    "nested too deep": lambda lines: {"output": b"[" * 100_000 + b"\n" + jsonl(lines[1:])},
    "an expired line": lambda lines: {
        "output": jsonl(lines[1:]),
        "error": jsonl([{"custom_id": lines[0]["custom_id"], "error": {"code": "batch_expired"}}]),
    },
    "a line's 429 as text": lambda lines: {"output": with_response(lines, status_code="429", body={"error": {}})},
    "a line's 503 as text in its error": lambda lines: {
        "output": jsonl(changed(lines, response=None, error={"code": "503", "message": "busy"}))
    },
    "a body that is no completion": lambda lines: {"output": with_response(lines, body="<html>")},
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_answers_in_every_dialect_are_read(name: str, tmp_path: Path) -> None:
    with providing(READ[name]) as provider:
        done, answers, failed = asked(tmp_path, provider)
        assert (done.answered, done.failed, failed) == (COUNT, 0, [])
        assert answers == {key: key for key in provider.begun[0]}
        assert len(provider.begun) == 1


@pytest.mark.parametrize("name", AGAIN)
def test_what_cannot_be_read_is_asked_once_more_and_only_that(name: str, tmp_path: Path) -> None:
    with providing(AGAIN[name]) as provider:
        done, answers, failed = asked(tmp_path, provider)
        assert (done.answered, done.failed, failed) == (COUNT, 0, [])
        assert answers == {key: key for key in provider.begun[0]}
        assert len(provider.begun) == 2
        assert set(provider.begun[1]) < set(provider.begun[0]) or name in (
            "expired without a file", "no file at all", "a file that is gone", "garbage"
        )  # fmt: skip


def test_line_that_is_too_long_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.teachers.batch.results._LONGEST_LINE", 2000)

    def long(lines: list[Line]) -> dict[str, Any]:
        return {"output": with_response(lines, body=completion("x" * 9000))}

    with providing(long) as provider:
        done, answers, _ = asked(tmp_path, provider)
    assert (done.answered, len(provider.begun), provider.begun[1]) == (COUNT, 2, provider.begun[0][:1])
    assert set(answers) == set(provider.begun[0])


def test_refused_line_fails_alone_with_its_reason(tmp_path: Path) -> None:
    def refused(lines: list[Line]) -> dict[str, Any]:
        error = {"error": {"message": "flagged by moderation", "code": "content_filter"}}
        return {"output": with_response(lines, status_code="403", body=error)}

    with providing(refused) as provider:
        done, answers, failed = asked(tmp_path, provider)
    assert (done.answered, done.failed, len(answers), len(provider.begun)) == (COUNT - 1, 1, COUNT - 1, 1)
    assert failed == [("HTTP 403: flagged by moderation", 1)]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"status": "in_progress"}, (None, "in_progress", (), None)),
        ({"status": "Paused"}, (None, "Paused", (), None)),
        ({"status": "canceled", "created_at": 5, "cancelled_at": 7}, ("cancelled", "canceled", (), 2)),
        ({"status": "FAILED"}, ("failed", "FAILED", (), None)),
        (
            {"status": "ended", "created_at": 1_700_000_000_000, "ended_at": 1_700_000_003_000},
            ("completed", "ended", (), 3),
        ),
        ({"status": "expired", "created_at": "soon"}, ("expired", "expired", (), None)),
        (
            {"status": "completed", "output_file_id": " a ", "error_file_id": 3},
            ("completed", "completed", ("a",), None),
        ),
    ],
)
def test_status_is_read_in_every_dialect(output: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = read_status(SimpleNamespace(**output))
    assert isinstance(found, BatchStatus)
    assert (found.ending, found.state, found.files, found.latency_s) == expected


def test_what_is_no_batch_has_no_status() -> None:
    assert [read_status(output) for output in ("<html>", None, SimpleNamespace(status=None), SimpleNamespace())] == [
        None
    ] * 4
