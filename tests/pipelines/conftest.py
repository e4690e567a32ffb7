"""A scripted endpoint: the real protocol over a socket, with the answers that a test wants."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from pipelines.teachers.first_question import MESSAGES
from tests.pipelines.reply_bodies import KEY

# What a script gives for a request's body: the content of a reply, with its `logprobs` or alone, or an HTTP status to
# refuse it with.
Script = Callable[[dict[str, Any]], str | int | tuple[str, Any]]


_FIRST = "<think>From 14:50 to 16:05.</think>75 minutes."


class Endpoint:
    """Where a scripted endpoint is, and every request that it got; a run's first question is answered and not among
    them. With a `key`, whoever has another one is refused, in words that repeat it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[dict[str, Any]] = []
        self.answers_first = True
        self.refusal = "scripted {status}"
        self.key: str | None = None
        self.keys: set[str | None] = set()


@contextmanager
def _serving(script: Script) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            sent = self.headers["authorization"]
            endpoint.keys.add(sent)
            if endpoint.key is not None and sent != f"Bearer {endpoint.key}":
                self.answer(401, {"error": {"message": f"The key {sent} is not known"}})
                return
            first = body["messages"] == list(MESSAGES)
            if not first:
                endpoint.requests.append(body)
            output = _FIRST if first and endpoint.answers_first else script(body)
            status = output if isinstance(output, int) else 200
            output, logprobs = output if isinstance(output, tuple) else (output, None)
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            message = {"role": "assistant", "content": output}
            reply: dict[str, Any] = {
                "id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage,
                "choices": [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}],
            }  # fmt: skip
            if status != 200:
                reply = {"error": {"message": endpoint.refusal.format(status=status)}}
            self.answer(status, reply)

        def answer(self, status: int, reply: dict[str, Any]) -> None:
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def scripted() -> Callable[[Script], Any]:
    """Serve a script while a `with` block runs."""
    return _serving


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits, the bound on a body is small, and a teacher's key is one that answers may not repeat."""
    monkeypatch.setattr("pipelines.teachers.waits.FIRST_S", 0.0)
    monkeypatch.setattr("pipelines.teachers.waits.LONGEST_S", 0.0)
    monkeypatch.setattr("pipelines.teachers.transport.MOST_BYTES", 2**18)
    monkeypatch.setenv("A_KEY", KEY)


class Gate:
    """The rehearsal server answers so many requests more (None: all), and holds those that come after."""

    left: int | None = None

    def seconds(self, *_: Any) -> float:
        if self.left is None:
            return 0.0
        self.left -= 1
        return 0.0 if self.left >= 0 else 3600.0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """What is killed in the middle is killed there on any machine: nothing goes on behind the gate."""
    chosen = Gate()
    monkeypatch.setattr("pipelines.rehearsal.server.delay_of", chosen.seconds)
    return chosen
