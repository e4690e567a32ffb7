"""An OpenAI-compatible server a tenth of whose replies are odd, in a process of its own on 127.0.0.1.

POST /v1/chat/completions   answers the number in the last "Request 42:" of the body; which numbers get an odd reply, of
                            which kind, and whether again when asked again, hangs on the number alone
GET  /asks                  how often each number was asked, and how many requests are under way

Alone: python -m benchmarks.odd_server (it prints its address, and ends with its standard input).
"""

import asyncio
import json
import random
import re
from collections import Counter
from typing import Any

from aiohttp import web

from benchmarks.latency_server import SEED, serve

ODD_SHARE = 0.1
_MEAN_S = 0.3
_NUMBER = re.compile(rb"Request (\d+):")
_MESSAGE = {"role": "assistant", "content": "Blue, for it is calm.", "reasoning_content": "A colour is asked for."}


def completion(**changes: Any) -> dict[str, Any]:
    """A chat completion with some of its parts replaced."""
    choice = {"index": 0, "message": _MESSAGE, "finish_reason": "stop"}
    usage = {"prompt_tokens": 90, "completion_tokens": 12, "total_tokens": 102}
    choice |= {key: changes.pop(key) for key in ("message", "finish_reason") if key in changes}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "odd",
        "choices": [choice],
        "usage": usage,
    } | (changes)


# What a reply can be: a status and a body, text or JSON. "cut" and "hang" are what they say.
ODD: dict[str, tuple[int, Any]] = {
    "blank lines": (200, "\n\n\n"),
    "empty body": (200, ""),
    "half a document": (200, json.dumps(completion())[:80]),
    "html": (200, "<html><body>Bad gateway</body></html>"),
    "null": (200, "null"),
    "a list": (200, "[]"),
    "NaN": (200, '{"choices": NaN}'),
    "an event stream": (200, "data: {}\n\ndata: [DONE]\n\n"),
    "deep": (200, "[" * 3000),
    "an error in 200": (200, {"error": {"message": "upstream failed", "code": 502}}),
    "no choices": (200, completion(choices=[])),
    "no message": (200, completion(message=None)),
    "content parts": (200, completion(message={"role": "assistant", "content": [{"type": "text", "text": "Blue."}]})),
    "content a number": (200, completion(message={"role": "assistant", "content": 7})),
    "no content": (200, completion(message={"role": "assistant", "content": None})),
    "a refusal": (200, completion(message={"role": "assistant", "content": None, "refusal": "No."})),
    "usage null": (200, completion(usage=None)),
    "usage empty": (200, completion(usage={})),
    "usage of nulls": (200, completion(usage={"prompt_tokens": None, "completion_tokens": None})),
    "usage negative": (200, completion(usage={"prompt_tokens": -1, "completion_tokens": -5, "total_tokens": -6})),
    "usage a float": (200, completion(usage={"prompt_tokens": 9.5, "completion_tokens": 2.5, "total_tokens": 12.0})),
    "usage huge": (200, completion(usage={"prompt_tokens": 2**70, "completion_tokens": 1, "total_tokens": 2**70})),
    "finish null": (200, completion(finish_reason=None)),
    "finish odd": (200, completion(finish_reason="insufficient_system_resource")),
    "400": (400, {"error": {"message": "this input cannot be read"}}),
    "403": (403, {"error": {"message": "flagged by moderation"}}),
    "408": (408, {"error": {"message": "took too long"}}),
    "422": (422, {"error": {"message": "not like this"}}),
    "429": (429, {"error": {"message": "slow down"}}),
    "500": (500, {"error": {"message": "oh"}}),
    "503 html": (503, "<html>no</html>"),
    "cut": (200, None),
    "hang": (200, None),
}


def oddity_of(number: int) -> tuple[str, bool] | None:
    """Which odd reply a request gets, and whether again each time it is asked; None for a good one."""
    draw = random.Random(f"odd {SEED} {number}")
    if draw.random() >= ODD_SHARE:
        return None
    kind = draw.choice(list(ODD))
    # A rate limit passes; one that never does would hold the whole teacher back at the end of each call.
    return kind, draw.random() < 0.3 and kind not in ("429", "hang")


class _Server:
    def __init__(self) -> None:
        self._asks: Counter[int] = Counter()
        self._under_way = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/asks", self._counts)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        number = int(_NUMBER.findall(await request.read())[-1])
        self._asks[number] += 1
        self._under_way += 1
        try:
            await asyncio.sleep(random.expovariate(1 / _MEAN_S))
            odd = oddity_of(number)
            if odd is None or not (odd[1] or self._asks[number] == 1):
                return web.json_response(completion())
            return await self._odd(request, odd[0])
        finally:
            self._under_way -= 1

    async def _odd(self, request: web.Request, kind: str) -> web.StreamResponse:
        if kind == "hang":
            # Until the asker hangs up: a handler hears nothing of that by itself.
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.1)
        if kind == "cut":
            assert request.transport is not None
            request.transport.close()
        status, body = ODD[kind]
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"retry-after": "0"} if status == 429 else {}
        return web.Response(status=status, text=text, content_type="application/json", headers=headers)

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response({"asks": self._asks, "under_way": self._under_way})


if __name__ == "__main__":
    asyncio.run(serve(_Server().app()))
