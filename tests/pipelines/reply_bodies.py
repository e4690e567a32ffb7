"""Answers as raw bytes, and what a kind of answer may end as; `reply_kinds.py` has the kinds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "k3y!of-nobody"
TEXT = "It takes 75 minutes."
THOUGHT = "From 14:50 to 16:05."


@dataclass(frozen=True)
class Ending:
    """What one kind ends as: in generation, judging and repair; in evaluation; in `teachers test`."""

    ask: str
    eval: str
    test: str


KEPT = Ending("kept", "an answer", "shown")
CUT = Ending("kept, cut short: rejected", "an answer, truncated", "shown, with a hint")
RETRIED = Ending("asked again; then the row fails", "asked again; then an error", "an error, exit 2")
WAITED = Ending("the teacher waits; then the row fails", "the model waits; then an error", "an error, exit 2")
MALFORMED = Ending("the row fails as malformed", "an error", "an error, exit 2")
FOR_GOOD = Ending("the row fails for good", "an error", "an error, exit 2")
TOO_LONG = Ending("the row fails for good, as malformed", "an error", "an error, exit 2")
SUSPECT = Ending(
    "the row fails; the run stops where every one does", "an error; given up where all are", "an error, exit 2"
)
STOPS = Ending("the run stops", "the model is given up", "an error, exit 2")


@dataclass(frozen=True)
class Kind:
    """One kind of answer.

    `plays` is what is written, one entry a request, the last one for ever; None hangs. `holds` are fields of the reply
    or words of the failure. `fields` change the teacher's entry.
    """

    group: str
    name: str
    plays: tuple[bytes | None, ...]
    ending: Ending
    holds: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


def http(
    body: bytes,
    status: int = 200,
    kind: str | None = "application/json",
    headers: tuple[str, ...] = (),
    length: int | None = None,
) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes, headers: str = "Content-Type: application/json", end: bytes = b"0\r\n\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{headers}\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


def completion(message: Any = None, finish: Any = "stop", **outer: Any) -> dict[str, Any]:
    output = {"role": "assistant", "content": TEXT} if message is None else message
    document = {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [{"index": 0, "message": output, "finish_reason": finish}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}  # fmt: skip
    return {name: value for name, value in {**document, **outer}.items() if value is not ...}


def good(message: Any = None, finish: Any = "stop", **outer: Any) -> bytes:
    return http(json.dumps(completion(message, finish, **outer)).encode())


def refused(number: int, message: str = "it says no", headers: tuple[str, ...] = (), **error: Any) -> bytes:
    return http(json.dumps({"error": {"message": message, **error}}).encode(), number, headers=headers)


def in_200(document: Any) -> bytes:
    return http(json.dumps(document).encode())


def delta(finish: str | None = None, **parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": parts, "finish_reason": finish}]}


COUNTED = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
WHOLE = (delta(role="assistant", content=""), delta(content="It takes "), delta(content="75 minutes."), delta("stop"))


def events(*documents: Any, space: str = " ", line: str = "\n", done: bool = True) -> bytes:
    texts = [item if isinstance(item, str) else f"data:{space}{json.dumps(item)}" for item in documents]
    return (line * 2).join([*texts, *([f"data:{space}[DONE]"] if done else []), ""]).encode()


def stream(body: bytes, cut: bool = False, pieces: int = 1) -> bytes:
    size = max(1, len(body) // pieces)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return chunked(*parts, headers="Content-Type: text/event-stream", end=b"" if cut else b"0\r\n\r\n")


def kind(group: str, name: str, plays: Any, ending: Ending = KEPT, holds: Any = None, **fields: Any) -> Kind:
    if holds is None:
        holds = {"content": TEXT} if ending is KEPT else {}
    elif isinstance(holds, str):
        holds = {"words": holds}
    return Kind(group, name, plays if isinstance(plays, tuple) else (plays,), ending, holds, fields)
