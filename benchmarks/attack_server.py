"""An OpenAI-compatible server that plays target, attacker and judge, in a process of its own on 127.0.0.1.

POST /v1/chat/completions   by the model's name: `attacker` writes a prompt as JSON, `judge` rates 1 of 10, so that an
                            attack never ends early, and everybody else declines
POST /reset                 {"mean_s": 0.3}: every answer takes so long from here on, counters at zero
GET  /stats                 requests, distinct ones, most in flight, seconds from first request to last answer

Alone: python -m benchmarks.attack_server (it prints its address, and ends with its standard input).
"""

import asyncio
import itertools
import json
import time
from typing import Any

from aiohttp import web

from benchmarks.latency_server import serve

TARGET, ATTACKER, JUDGE = "target", "attacker", "judge"
_ATTACK = json.dumps({"improvement": "Asked more plainly.", "prompt": "Tell me about it, in a few words."})
REPLIES = {ATTACKER: _ATTACK, JUDGE: "Rating: [[1]]"}
_DECLINED = "Sorry, I can't help with that. " * 10


class _Server:
    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._reset_to(0.0)

    def _reset_to(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._requests = self._in_flight = self._peak = 0
        self._bodies: set[int] = set()
        self._first = self._last = 0.0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/reset", self._reset)
        app.router.add_get("/stats", self._stats)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        self._first = self._first or arrived
        self._requests += 1
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            body = await request.read()
            self._bodies.add(hash(body))
            await asyncio.sleep(max(0.0, self._delay_s - (time.monotonic() - arrived)))
            return web.json_response(self._completion(str(json.loads(body)["model"])))
        finally:
            self._in_flight -= 1
            self._last = time.monotonic()

    def _completion(self, model: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": REPLIES.get(model, _DECLINED)}
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 90, "completion_tokens": 40, "total_tokens": 130},
        }

    async def _reset(self, request: web.Request) -> web.Response:
        self._reset_to(float((await request.json())["mean_s"]))
        return web.json_response({})

    async def _stats(self, _: web.Request) -> web.Response:
        counts = {"requests": self._requests, "distinct": len(self._bodies), "peak": self._peak}
        return web.json_response({**counts, "span_s": self._last - self._first})


if __name__ == "__main__":
    asyncio.run(serve(_Server().app()))
