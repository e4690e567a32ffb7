"""The rehearsal teacher over HTTP, on 127.0.0.1 only: alone (`saferthoughts rehearse`) or in a thread of this process.

POST /v1/chat/completions    streamed or not, n, seed, max_tokens; no key is asked for
POST /v1/files, /v1/batches  the Batch API (batches.py)
GET  /v1/models, /health
GET  /stats                  requests, distinct ones, repeats of a former one, in flight, peak, faults by name; batches
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pipelines.errors import UserError
from pipelines.rehearsal.batches import Batches
from pipelines.rehearsal.faults import Fault, RehearsalSettings, cut_at, delay_of, fault_of
from pipelines.rehearsal.judging import JUDGE_MODELS, judge_reply
from pipelines.rehearsal.performer import MODELS, perform, phrases
from pipelines.rehearsal.protocol import BadRequest, ChatRequest, Choice, choice, count_tokens, error, parse, usage

_HOST = "127.0.0.1"
_SERVED = (*MODELS, *JUDGE_MODELS)
_LARGEST_BODY = 32 * 1024**2
_BACKLOG = 4096
# Hung requests are cancelled at shutdown after this many seconds.
_PATIENCE_S = 0.2

_listening: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _forget_sockets() -> None:
    """A forked child must not hold the parent's port: requests to it would hang once the parent has left."""
    for listener in list(_listening):
        listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sockets)


@dataclass(slots=True)
class _Stats:
    requests: int = 0
    repeats: int = 0
    in_flight: int = 0
    peak: int = 0


class RehearsalServer:
    """One server; `serving` runs it in the current event loop."""

    def __init__(self, settings: RehearsalSettings) -> None:
        self.settings = settings
        self._stats = _Stats()
        self._seen: Counter[bytes] = Counter()
        self._faults: Counter[Fault] = Counter()
        self._batches = Batches(settings, self._complete)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Answer requests while the block runs; gives the base URL, "http://127.0.0.1:PORT/v1".

        Raises:
            UserError: the port is taken, or an edited `phrases.yaml` does not hold together.
        """
        phrases()  # read before the first request, not during it
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/stats", self._show_stats)
        app.router.add_routes(self._batches.routes())
        # A client that gives up takes its handler along, so that `in_flight` tells the truth.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_PATIENCE_S)
        await runner.setup()
        try:
            listener = _listen(self.settings.port)
            await web.SockSite(runner, listener, backlog=_BACKLOG).start()
            yield f"http://{_HOST}:{listener.getsockname()[1]}/v1"
        finally:
            await self._batches.close()
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "saferthoughts"} for name in _SERVED]
        return web.json_response({"object": "list", "data": data})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _show_stats(self, _: web.Request) -> web.Response:
        stats = self._stats
        counts = {"requests": stats.requests, "distinct": len(self._seen), "repeats": stats.repeats}
        now = {"in_flight": stats.in_flight, "peak": stats.peak}
        faults = dict(sorted(self._faults.items()))
        return web.json_response({**counts, **now, "faults": faults, "batches": self._batches.counts()})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        stats = self._stats
        stats.requests += 1
        stats.in_flight += 1
        stats.peak = max(stats.peak, stats.in_flight)
        try:
            return await self._answer(request, await request.read())
        finally:
            stats.in_flight -= 1

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        digest = hashlib.sha256(body).digest()
        attempt = self._seen[digest]
        self._seen[digest] += 1
        self._stats.repeats += attempt > 0
        try:
            asked = parse(body)
        except BadRequest as reason:
            return _refuse(400, error(str(reason)))
        if asked.model not in _SERVED:
            message = f"The model '{asked.model}' does not exist. Choose from: {', '.join(_SERVED)}."
            return _refuse(404, error(message, code="model_not_found", param="model"))
        fault = fault_of(self.settings, digest, attempt)
        if fault:
            self._faults[fault] += 1
        if fault == "429":
            busy = error("Too many requests (rehearsed).", "rate_limit_error", "rate_limit_exceeded")
            return _refuse(429, busy, {"Retry-After": str(self.settings.retry_after)})
        if fault == "hang":
            await asyncio.Event().wait()
        if delay := delay_of(self.settings, digest, attempt):
            await asyncio.sleep(delay)
        if fault == "500":
            return _refuse(500, error("The server failed (rehearsed).", "server_error"))
        share = cut_at(self.settings, digest, attempt)
        truncated = share if fault == "truncate" else None
        cut = share if fault == "cut" else None
        if asked.stream:
            choices, counted = self._answers(asked, truncated)
            head = _head(asked, digest)
            return await _stream(request, head, choices, counted if _wants_usage(asked) else None, cut)
        text = json.dumps(self._complete(asked, digest, truncated)).encode()
        if cut is not None:
            return await _send_part(request, text, cut)
        return web.Response(body=text, content_type="application/json")

    def _complete(self, asked: ChatRequest, digest: bytes, share: float | None) -> dict[str, Any]:
        """A completion in one piece; with `share` its answers are cut off after that share of their tokens."""
        choices, counted = self._answers(asked, share)
        listed = [
            {"index": index, "message": item.message(), "logprobs": None, "finish_reason": item.finish_reason}
            for index, item in enumerate(choices)
        ]
        return {**_head(asked, digest), "object": "chat.completion", "choices": listed, "usage": counted}

    def _answers(self, asked: ChatRequest, share: float | None) -> tuple[list[Choice], dict[str, Any]]:
        choices = self._choices(asked, share)
        return choices, usage(sum(count_tokens(message["content"]) for message in asked.chat()), choices)

    def _choices(self, asked: ChatRequest, share: float | None) -> list[Choice]:
        """The answers; with `share` each is cut off after that share of its tokens."""
        seed = self.settings.seed if asked.seed is None else asked.seed
        chat, style = asked.chat(), self.settings.style
        choices = []
        for sample in range(asked.n or 1):
            if asked.model in JUDGE_MODELS:
                texts = ("", judge_reply(asked.model, chat, seed, sample, asked.structured))
            else:
                played = perform(asked.model, chat, seed, sample)
                texts = (played.reasoning, played.answer)
            laid_out = choice(asked.model, style, *texts, asked.limit())
            if share is not None:
                limit = max(1, int(laid_out.tokens * share))
                laid_out = choice(asked.model, style, *texts, limit)
            choices.append(laid_out)
        return choices


def _head(asked: ChatRequest, digest: bytes) -> dict[str, Any]:
    return {"id": f"chatcmpl-{digest.hex()[:24]}", "created": 0, "model": asked.model}


def _wants_usage(asked: ChatRequest) -> bool:
    return asked.stream_options is not None and asked.stream_options.include_usage


def _refuse(status: int, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _stream(
    request: web.Request, head: dict[str, Any], choices: list[Choice], counted: dict[str, Any] | None, cut: float | None
) -> web.StreamResponse:
    """Server-sent events; with `cut` the connection ends after that share of them."""
    head = {**head, "object": "chat.completion.chunk"}
    events: list[dict[str, Any]] = []
    for index, item in enumerate(choices):
        events += [{"index": index, "delta": delta, "finish_reason": None} for delta in item.deltas()]
        events.append({"index": index, "delta": {}, "finish_reason": item.finish_reason})
    chunks = [{**head, "choices": [event]} for event in events]
    if counted is not None:
        chunks.append({**head, "choices": [], "usage": counted})
    lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for line in lines if cut is None else lines[: max(1, int(len(lines) * cut))]:
        await response.write(line)
    if cut is not None:
        _hang_up(request)
        return response
    await response.write_eof()
    return response


async def _send_part(request: web.Request, text: bytes, share: float) -> web.StreamResponse:
    """The beginning of a body whose length was announced in full; then the connection is cut."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
    await response.prepare(request)
    await response.write(text[: int(len(text) * share)])
    _hang_up(request)
    return response


def _hang_up(request: web.Request) -> None:
    """Cut the connection. Closing alone is not enough: a forked child may hold a copy of the socket."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # the client was faster
            connection.shutdown(socket.SHUT_RDWR)
        request.transport.abort()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except OSError as problem:
        listener.close()
        raise UserError(
            f"Port {port} of {_HOST} cannot be used ({problem.strerror}). Choose another, or 0 for a free one."
        ) from problem
    _listening.add(listener)
    return listener


def serve(settings: RehearsalSettings, announce: Callable[[str], None]) -> None:
    """Serve until a KeyboardInterrupt; `announce` is called with the base URL once requests are answered.

    Raises:
        UserError: the port is taken.
    """

    async def forever() -> None:
        async with RehearsalServer(settings).serving() as base_url:
            announce(base_url)
            await asyncio.Event().wait()

    asyncio.run(forever())


@contextmanager
def rehearsing(settings: RehearsalSettings | None = None) -> Iterator[str]:
    """Serve from a thread of this process while the block runs; gives the base URL.

    The process may fork meanwhile: children reach the server over HTTP, and hold nothing of it.

    Raises:
        UserError: the port is taken.
    """
    thread = _Thread(RehearsalServer(settings or RehearsalSettings()))
    thread.start()
    try:
        yield thread.base_url()
    finally:
        if os.getpid() == thread.process:  # a forked child that leaves the block has no such thread
            thread.stop()


class _Thread(threading.Thread):
    def __init__(self, server: RehearsalServer) -> None:
        super().__init__(name="rehearsal-server", daemon=True)
        self.process = os.getpid()
        self._server = server
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._base_url = ""
        self._problem: Exception | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is raised again in the caller's thread
            self._problem = problem
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._server.serving() as self._base_url:
            self._ready.set()
            await self._leave.wait()

    def base_url(self) -> str:
        self._ready.wait()
        if self._problem is not None:
            raise self._problem
        return self._base_url

    def stop(self) -> None:
        if self._loop is not None and self._leave is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._leave.set)
        self.join()
