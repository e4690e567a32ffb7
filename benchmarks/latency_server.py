"""An OpenAI-compatible server whose delays are known beforehand, in a process of its own on 127.0.0.1.

POST /v1/chat/completions   answers after the latency of the number in the last "Request 42:" of the body
GET  /v1/models             one model
POST /reset                 {"mean_s": 2.0}: the mean latency from here on, counters at zero; 0 answers at once
GET  /stats                 requests, distinct ones, most in flight, seconds from first request to last answer

The delay hangs on the request's number alone, so every contender meets the same delays whatever it wraps around a
prompt. Alone: python -m benchmarks.latency_server (it prints its address, and ends with its standard input).
"""

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from aiohttp import web

from benchmarks.makespan import latency_of

# With it neither size of the benchmark has a straggler near its end, which would hide how well places are kept filled.
SEED = 59
MODEL = "latency"
_ROOT = Path(__file__).resolve().parent.parent
_NUMBER = re.compile(rb"Request (\d+):")
_BACKLOG = 4096
# About 1,600 and 300 characters: a response of the study's `improved` variant is of that size.
_REASONING = (
    "The request is weighed once more, its aim and its reader are named, and the plain way to answer is kept. " * 15
)
_ANSWER = "Here is a plain answer that says what was asked for and nothing else, in a sentence or two. " * 3


def prompt_text(number: int) -> str:
    """The prompt of that number, about as long as a short jailbreak template; its latency goes by the number."""
    filler = "Name a colour, say in one sentence what it goes well with, and give a reason that a child would follow. "
    return f"Request {number}: {filler * 4}".strip()


@dataclass(slots=True)
class _Counters:
    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    first: float | None = None
    last: float = 0.0
    seen: set[int] = field(default_factory=set)


class _Server:
    def __init__(self) -> None:
        self._mean_s = 0.0
        self._counters = _Counters()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/reset", self._reset)
        app.router.add_get("/stats", self._stats)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        counters = self._counters
        arrived = time.monotonic()
        numbers = _NUMBER.findall(await request.read())
        if not numbers:
            # Some clients greet the server first; that is no part of the work.
            return web.json_response(_completion("hello"))
        number = int(numbers[-1])
        counters.first = arrived if counters.first is None else counters.first
        counters.requests += 1
        counters.seen.add(number)
        counters.in_flight += 1
        counters.peak = max(counters.peak, counters.in_flight)
        try:
            if latency := latency_of(self._mean_s, SEED, number):
                await asyncio.sleep(latency - (time.monotonic() - arrived))
        finally:
            counters.in_flight -= 1
        counters.last = time.monotonic()
        return web.json_response(_completion(str(number)))

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "benchmark"}]}
        )

    async def _reset(self, request: web.Request) -> web.Response:
        self._mean_s = float((await request.json())["mean_s"])
        self._counters = _Counters()
        return web.json_response({})

    async def _stats(self, _: web.Request) -> web.Response:
        counters = self._counters
        span = 0.0 if counters.first is None else counters.last - counters.first
        counts = {"requests": counters.requests, "distinct": len(counters.seen), "peak": counters.peak}
        return web.json_response({**counts, "span_s": span})


def _completion(name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"({name}) {_ANSWER}", "reasoning_content": f"({name}) {_REASONING}"}
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 400, "total_tokens": 490},
    }


@dataclass(frozen=True, slots=True)
class Stats:
    """What the server saw since the last reset; `span_s` is the seconds from first request to last answer."""

    requests: int
    distinct: int
    peak: int
    span_s: float


class LatencyServer:
    """A running server as its caller sees it; `url` is the base URL, with /v1."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = url.removesuffix("/v1")

    def reset(self, mean_s: float) -> None:
        """Set the mean latency in seconds, and the counters to zero."""
        body = json.dumps({"mean_s": mean_s}).encode()
        with urlopen(Request(f"{self._root}/reset", data=body, headers={"Content-Type": "application/json"})):
            pass

    def stats(self) -> Stats:
        """The counters."""
        with urlopen(f"{self._root}/stats") as answer:
            return Stats(**json.load(answer))


@contextmanager
def serving(module: str = "benchmarks.latency_server") -> Iterator[LatencyServer]:
    """Run the server in another process while the block runs; it ends with this process, however that ends.

    `module` is what runs there: this server, or another that is spoken to in the same way.
    """
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the latency server did not start")
            yield LatencyServer(url)
        finally:
            process.stdin.close()


async def serve(app: web.Application) -> None:
    """Serve on a free port of 127.0.0.1, print its address, and end with the standard input."""
    # A contender that leaves in the middle of a request shows in the counts; aiohttp's traceback tells nothing more.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=_BACKLOG).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(_Server().app()))
