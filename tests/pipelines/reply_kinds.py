"""Every kind of answer that a server has been seen to give, as raw bytes, with the ending that it must have.

`KINDS` is played over a socket by test_replies.py, and is the table in docs/replies.md.
"""

import gzip
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
RETRIED = Ending("asked again; then the row fails", "asked again; then an error", "told, exit 2")
WAITED = Ending("the teacher waits; then the row fails", "the model waits; then an error", "told, exit 2")
MALFORMED = Ending("the row fails as malformed", "an error", "told, exit 2")
FOR_GOOD = Ending("the row fails for good", "an error", "told, exit 2")
TOO_LONG = Ending("the row fails for good, as malformed", "an error", "told, exit 2")
SUSPECT = Ending("the row fails; the run stops where every one does", "an error; given up where all are", "told, exit 2")
STOPS = Ending("the run stops", "the model is given up", "told, exit 2")


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
    said = {"role": "assistant", "content": TEXT} if message is None else message
    document = {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [{"index": 0, "message": said, "finish_reason": finish}],
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


BODY = json.dumps(completion()).encode()
STREAMED = {"stream": True}
BROKEN = "a 200 that is no reply"
_NOT_JSON = [
    kind(BROKEN, "an empty body", http(b""), RETRIED, "an empty body"),
    kind(BROKEN, "blank lines only", http(b"\n\n\n\n"), RETRIED, "blank lines only"),
    kind(BROKEN, "half a document", http(BODY[:50]), RETRIED, "not JSON"),
    kind(BROKEN, "a page of HTML", http(b"<html><style>b{}</style><b>busy</b></html>", kind="text/html"), RETRIED, "busy"),
    kind(BROKEN, "null", http(b"null"), RETRIED, "not a chat completion but null"),
    kind(BROKEN, "an empty list", http(b"[]"), RETRIED, "a list"),
    kind(BROKEN, "NaN", http(b"NaN"), RETRIED, "a number"),
    kind(BROKEN, "a text", http(b'"busy"'), RETRIED, "busy"),
    kind(BROKEN, "two documents", http(BODY + BODY), RETRIED, "not JSON"),
    kind(BROKEN, "nested too deep", http(b"[" * 200_000), RETRIED, "nested too deep"),
    kind(BROKEN, "choices nested too deep", http(b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}"), RETRIED),
    kind(BROKEN, "longer than the bound", http(b'"' + b"a" * 300_000 + b'"'), RETRIED, "longer than"),
    kind(BROKEN, "a content-length that is too short", http(BODY, length=40), RETRIED, "broken reply"),
    kind(BROKEN, "a content-length that is too long", http(BODY, length=9000), RETRIED, "cut"),
    kind(BROKEN, "300 headers", http(BODY, headers=tuple(f"X-{n}: a" for n in range(300))), RETRIED, "not HTTP"),
    kind(BROKEN, "a header of 100 kB", http(BODY, headers=("X-Long: " + "a" * 100_000,)), RETRIED, "not HTTP"),
    kind(BROKEN, "something that is not HTTP", b"busy\r\n\r\n", RETRIED, "not HTTP"),
    kind(BROKEN, "nothing: the connection is closed", b"", RETRIED, "cut"),
    kind(BROKEN, "nothing: the server hangs", (None,), RETRIED, "no answer within", attempt_timeout_s=0.5),
    kind(BROKEN, "broken gzip", http(b"\x1f\x8bnot", headers=("Content-Encoding: gzip",)), RETRIED, "cut"),
    kind(BROKEN, "chunks that are cut", chunked(BODY[:60], end=b""), RETRIED, "cut"),
    kind(BROKEN, "chunks without sizes", chunked(end=b"zz\r\n"), RETRIED),
    kind(BROKEN, "no choices", good(choices=...), RETRIED, "without choices"),
    kind(BROKEN, "an empty list of choices", good(choices=[]), RETRIED, "without choices"),
    kind(BROKEN, "choices that are null", good(choices=[None]), RETRIED, "a choice that is null"),
    kind(BROKEN, "a message that is null", good(choices=[{"message": None}]), RETRIED, "without a message"),
    kind(BROKEN, "an empty message", good({}, None), RETRIED, "without anything in it"),
    kind(BROKEN, "an image only", good({"content": [{"type": "image_url"}]}), RETRIED, "image_url"),
    kind(BROKEN, "204", http(b"", 204), RETRIED, "an empty body"),
]

ODD = "a 200 that can be read"
_ODD = [
    kind(ODD, "a whole answer", good(), holds={"content": TEXT, "finish_reason": "stop", "input_tokens": 7, "notes": ""}),
    kind(ODD, "blank lines, then an answer", http(b"\n\n \n" + BODY)),
    kind(ODD, "no content-type", http(BODY, kind=None)),
    kind(ODD, "a byte order mark", http(b"\xef\xbb\xbf" + BODY)),
    kind(ODD, "UTF-16", http(BODY.decode().encode("utf-16"))),
    kind(ODD, "gzip", http(gzip.compress(BODY), headers=("Content-Encoding: gzip",))),
    kind(ODD, "half a character", http(BODY.replace(b"75", b"\xe2\x82")), holds={"content": "It takes \ufffd minutes."}),
    kind(ODD, "half a surrogate pair", good({"content": "a\ud83d."}), holds={"content": "a\ufffd."}),
    kind(ODD, "NUL", good({"content": "a\0b"}), holds={"content": "a\ufffdb"}),
    kind(ODD, "an event stream that was not asked for", stream(events(*WHOLE, COUNTED))),
    kind(ODD, "an event stream as JSON", http(events(*WHOLE)), holds={"content": TEXT, "notes": "no usage"}),
    kind(ODD, "several choices", good(choices=[completion()["choices"][0], {"message": {"content": "b"}}])),
    kind(ODD, "text in place of a message", good(choices=[{"text": TEXT, "finish_reason": "stop"}])),
    kind(ODD, "content in parts", good({"content": [{"type": "text", "text": "It takes "}, "75 minutes."]})),
    kind(ODD, "thinking in parts",
         good({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
                           {"type": "text", "text": TEXT}]}), holds={"content": TEXT, "reasoning": THOUGHT}),
    kind(ODD, "content that is a number", good({"content": 75}), holds={"content": "75"}),
    kind(ODD, "content that is an object", good({"content": {"minutes": 75}}), holds={"content": '{"minutes": 75}'}),
    kind(ODD, "empty content with stop", good({"content": ""}), holds={"content": "", "finish_reason": "stop"}),
    kind(ODD, "null content with stop", good({"content": None}), holds={"content": ""}),
    kind(ODD, "a refusal", good({"content": None, "refusal": "I cannot."}), holds={"content": "I cannot."}),
    kind(ODD, "a refusal in parts", good({"content": [{"type": "refusal", "refusal": "No."}]}), holds={"content": "No."}),
    kind(ODD, "tool calls without content", good({"content": None, "tool_calls": [{}]}, "tool_calls"), CUT,
         {"content": "", "finish_reason": "tool_calls"}),
    kind(ODD, "an empty error beside an answer", good(error=None)),
]  # fmt: skip

THINKING = "reasoning"
_THINKING = [
    *(
        kind(THINKING, f"in `{name}`", good({"content": TEXT, name: value}), holds={"content": TEXT, slot: THOUGHT})
        for name, value, slot in (
            ("reasoning_content", THOUGHT, "reasoning_content"),
            ("reasoning", THOUGHT, "reasoning"),
            ("thinking", THOUGHT, "reasoning"),
            ("reasoning_details", [{"type": "reasoning.text", "text": THOUGHT}], "reasoning"),
        )
    ),
    kind(THINKING, "in `reasoning`, as parts", good({"content": TEXT, "reasoning": [{"type": "text", "text": THOUGHT}]}),
         holds={"content": TEXT, "reasoning": THOUGHT}),
    kind(THINKING, "as a summary", good({"content": TEXT, "reasoning_details": [{"summary": THOUGHT}]}),
         holds={"reasoning": THOUGHT}),
    kind(THINKING, "encrypted", good({"content": TEXT, "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
         holds={"content": TEXT, "reasoning": None}),
    kind(THINKING, "in a field, without an answer", good({"content": None, "reasoning": THOUGHT}, "length"), CUT,
         {"content": "", "reasoning": THOUGHT}),
    kind(THINKING, "inline", good({"content": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}"}),
         holds={"content": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}"}),
]  # fmt: skip

COUNTS = "usage"
_USAGE = [
    kind(COUNTS, name, good(usage=usage), holds={"content": TEXT, "input_tokens": tokens, "output_tokens": tokens})
    for name, usage, tokens in (
        ("null", None, 0),
        ("missing", ..., 0),
        ("empty", {}, 0),
        ("a list", [7, 5], 0),
        ("null counts", {"prompt_tokens": None, "completion_tokens": None}, 0),
        ("negative counts", {"prompt_tokens": -7, "completion_tokens": -1}, 0),
        ("fractions", {"prompt_tokens": 7.5, "completion_tokens": 7.0}, 7),
        ("huge counts", {"prompt_tokens": 10**30, "completion_tokens": 2**63}, 0),
        ("true and false", {"prompt_tokens": True, "completion_tokens": False}, 0),
        ("digits as text", {"prompt_tokens": "7", "completion_tokens": "7"}, 7),
        ("NaN and Infinity", {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, 0),
        ("other names", {"input_tokens": 7, "output_tokens": 7}, 7),
    )
]

ENDED = "finish reason"
_FINISH = [
    *(kind(ENDED, name, good(finish=name)) for name in ("eos", "stop_sequence", "end_turn", "STOP", "COMPLETE")),
    *(
        kind(ENDED, name or "null", good(finish=name), CUT, {"content": TEXT, "finish_reason": kept})
        for name, kept in (
            ("length", "length"),
            ("max_tokens", "length"),
            ("MAX_TOKENS", "length"),
            ("content_filter", "content_filter"),
            ("SAFETY", "content_filter"),
            ("insufficient_system_resource", "insufficient_system_resource"),
            ("error", "error"),
            ("abort", "abort"),
            ("tool_calls", "tool_calls"),
            ("unknown", "unknown"),
            (None, ""),
        )
    ),
    kind(ENDED, "a number", good(finish=3), CUT, {"finish_reason": ""}),
]

IN_200 = "an error in a 200"
_ERRORS = [
    kind(IN_200, "code 402", in_200({"error": {"message": "Insufficient credits", "code": 402}}), STOPS, "Insufficient c"),
    kind(IN_200, "insufficient_quota", in_200({"error": {"message": "no", "code": "insufficient_quota"}}), STOPS),
    kind(IN_200, "code 429", in_200({"error": {"message": "slow down", "code": 429}}), WAITED, "slow down"),
    kind(IN_200, "code 502", in_200({"error": {"message": "down", "code": "502"}}), RETRIED, "down"),
    kind(IN_200, "code 400", in_200({"object": "error", "message": "bad", "code": 400}), MALFORMED, "bad"),
    kind(IN_200, "code 403, flagged", in_200({"error": {"message": "input was flagged", "code": 403}}), FOR_GOOD, "flagged"),
    kind(IN_200, "a text", in_200({"error": "overloaded"}), RETRIED, "overloaded"),
    kind(IN_200, "`detail`", in_200({"detail": "overloaded"}), RETRIED, "overloaded"),
    kind(IN_200, "in a list", in_200([{"error": {"message": "internal", "code": 500}}]), RETRIED, "internal"),
    kind(IN_200, "in a choice", in_200({"choices": [{"error": {"message": "upstream", "code": 502}}]}), RETRIED, "upstream"),
    kind(IN_200, "`base_resp`", in_200({"choices": None, "base_resp": {"status_code": 1008, "status_msg":
         "insufficient balance"}}), STOPS, "insufficient balance"),
    kind(IN_200, "an upstream's words", in_200({"error": {"message": "Provider returned error", "code": 502, "metadata":
         {"raw": '{"error": {"message": "no worker"}}'}}}), RETRIED, "no worker"),
]  # fmt: skip

STATUS = "a status"
LONG = "This model's maximum context length is 4096 tokens."
GEMINI = "You exceeded your current quota, please check your plan and billing details. Please retry in 3.2s."
_STATUSES = [
    kind(STATUS, "400", refused(400), MALFORMED, "HTTP 400: it says no"),
    kind(STATUS, "400, over the context length", refused(400, LONG, code="context_length_exceeded"), TOO_LONG, "4096"),
    kind(STATUS, "400, content filter", refused(400, "The response was filtered", code="content_filter"), FOR_GOOD),
    kind(STATUS, "400, credit balance", refused(400, "Your credit balance is too low"), STOPS, "credit balance"),
    kind(STATUS, "401", refused(401), STOPS, "HTTP 401: it says no"),
    kind(STATUS, "402", refused(402, "Insufficient Balance"), STOPS, "Insufficient Balance"),
    kind(STATUS, "403", refused(403), SUSPECT, "HTTP 403"),
    kind(STATUS, "403, flagged by moderation", refused(403, "your input was flagged"), FOR_GOOD, "flagged"),
    kind(STATUS, "403, an expired key", refused(403, "The API key has expired"), STOPS, "expired"),
    kind(STATUS, "403, a rate limit", refused(403, "Rate limit exceeded"), WAITED, "Rate limit"),
    kind(STATUS, "404, no such model", refused(404, "The model `x` does not exist"), STOPS, "does not exist"),
    kind(STATUS, "404, a page", http(b"<h1>Not Found</h1>", 404, "text/html"), SUSPECT, "HTTP 404: Not Found"),
    kind(STATUS, "405", refused(405), SUSPECT),
    kind(STATUS, "408", refused(408), RETRIED),
    kind(STATUS, "409", refused(409), RETRIED),
    kind(STATUS, "413", refused(413, "Payload too large"), FOR_GOOD, "Payload"),
    kind(STATUS, "414", http(b"", 414), FOR_GOOD, "no words"),
    kind(STATUS, "422, FastAPI", http(b'{"detail": [{"loc": ["body", "seed"], "msg": "not a number"}]}', 422), MALFORMED,
         "body.seed: not a number"),
    kind(STATUS, "425", refused(425), RETRIED),
    kind(STATUS, "429", refused(429, headers=("Retry-After: 0",)), WAITED, "HTTP 429"),
    kind(STATUS, "429, insufficient_quota", refused(429, "no", type="insufficient_quota"), STOPS),
    kind(STATUS, "429, a quota that comes back", refused(429, GEMINI, status="RESOURCE_EXHAUSTED"), WAITED, "quota"),
    kind(STATUS, "429, then an answer", (refused(429), good())),
    kind(STATUS, "451", refused(451), FOR_GOOD),
    kind(STATUS, "500", refused(500), RETRIED, "HTTP 500"),
    kind(STATUS, "500, then an answer", (refused(500), good())),
    kind(STATUS, "502, a page", http(b"<html><title>502 Bad Gateway</title></html>", 502, "text/html"), RETRIED, "Bad G"),
    kind(STATUS, "503 with Retry-After", refused(503, headers=("Retry-After: 0",)), RETRIED, "HTTP 503"),
    kind(STATUS, "529", refused(529, "Overloaded"), RETRIED, "Overloaded"),
    kind(STATUS, "a redirect", http(b"", 302, headers=("Location: https://a:b@elsewhere.example/v1?key=c",)), SUSPECT,
         "redirects to https://elsewhere.example, which"),
    kind(STATUS, "an error that repeats the key", refused(400, f"Bad token {KEY}"), MALFORMED, "Bad token (the key)"),
    kind(STATUS, "an error with control characters", refused(500, "a\x1b[2J\u202eb"), RETRIED, "a\\x1b[2J\\u202eb"),
    kind(STATUS, "an error of a megabyte", refused(500, "a" * 200_000), RETRIED, "a..."),
]  # fmt: skip

STREAM = "a stream"
CRLF = events(*WHOLE, COUNTED, space="", line="\r\n")
_STREAMS = [
    kind(STREAM, "whole", stream(events(*WHOLE, COUNTED)), holds={"content": TEXT, "input_tokens": 7, "notes": ""},
         **STREAMED),
    kind(STREAM, "CRLF, no space after `data:`", stream(CRLF), **STREAMED),
    kind(STREAM, "bare CR", stream(events(*WHOLE, line="\r")), **STREAMED),
    kind(STREAM, "a byte at a time", stream(CRLF, pieces=len(CRLF)), **STREAMED),
    kind(STREAM, "split within a character", stream(events(delta("stop", content="für €")).replace(b"\\u20ac",
         "€".encode()).replace(b"\\u00fc", "ü".encode()), pieces=10**6), holds={"content": "für €"}, **STREAMED),
    kind(STREAM, "comments and other fields", stream(events(": ping", *WHOLE[:2], ":", "id: 4", *WHOLE[2:])), **STREAMED),
    kind(STREAM, "one document over several lines", stream(events("data: {\"choices\": [{\"delta\": {\"content\":\ndata: "
         f'"{TEXT}"}}, "finish_reason": "stop"}}]}}')), **STREAMED),
    kind(STREAM, "no blank lines between", stream(events(*WHOLE).replace(b"\n\n", b"\n")), **STREAMED),
    kind(STREAM, "without [DONE]", stream(events(*WHOLE, done=False)), **STREAMED),
    kind(STREAM, "cut after its finish reason", stream(events(*WHOLE, done=False), cut=True), **STREAMED),
    kind(STREAM, "without usage", stream(events(*WHOLE)), holds={"content": TEXT, "input_tokens": 0, "notes": "no usage"},
         **STREAMED),
    kind(STREAM, "halves of a surrogate pair", stream(events(delta(content="\ud83d"), delta("stop", content="\ude00"))),
         holds={"content": "\U0001f600"}, **STREAMED),
    *(
        kind(STREAM, f"reasoning in `{name}`", stream(events(delta(**{name: value}), *WHOLE)),
             holds={"content": TEXT, slot: THOUGHT}, **STREAMED)
        for name, value, slot in (
            ("reasoning_content", THOUGHT, "reasoning_content"),
            ("reasoning", THOUGHT, "reasoning"),
            ("reasoning_details", [{"type": "reasoning.text", "text": THOUGHT}], "reasoning"),
            ("content", [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}], "reasoning"),
        )
    ),
    kind(STREAM, "a refusal", stream(events(delta(refusal="I "), delta("stop", refusal="cannot."))),
         holds={"content": "I cannot."}, **STREAMED),
    kind(STREAM, "one piece of JSON in its place", good(), **STREAMED),
    kind(STREAM, "stream_options refused", (refused(400, "Unknown field: stream_options"), stream(events(*WHOLE))),
         **STREAMED),
    kind(STREAM, "cut in the middle", stream(events(*WHOLE[:2], done=False), cut=True), CUT,
         {"content": "It takes ", "finish_reason": "cut"}, **STREAMED),
    kind(STREAM, "ended in the middle", stream(events(*WHOLE[:2], done=False)), CUT, {"finish_reason": "cut"}, **STREAMED),
    kind(STREAM, "a stop in the middle", (stream(events(*WHOLE[:2], done=False), cut=True)[:-1], None), CUT,
         {"content": "It takes "}, stream=True, idle_timeout_s=0.5, attempt_timeout_s=60),
    kind(STREAM, "[DONE] without a finish reason", stream(events(*WHOLE[:3])), CUT, {"finish_reason": ""}, **STREAMED),
    kind(STREAM, "cut off at the token limit", stream(events(*WHOLE[:3], delta("length"))), CUT, **STREAMED),
    kind(STREAM, "cut before anything came", stream(events(WHOLE[0], done=False), cut=True), RETRIED, **STREAMED),
    kind(STREAM, "nothing but a role", stream(events(WHOLE[0])), RETRIED, "without an answer", **STREAMED),
    kind(STREAM, "nothing but comments", stream(events(": a", ": b", done=False)), RETRIED, "without an answer", **STREAMED),
    kind(STREAM, "an error in the middle", stream(events(*WHOLE[:2], {"error": {"message": "worker died", "code": 500}})),
         RETRIED, "worker died", **STREAMED),
    kind(STREAM, "an `event: error`", stream(events('event: error\ndata: {"message": "overloaded"}')), RETRIED,
         "overloaded", **STREAMED),
    kind(STREAM, "an error without `data:`", stream(events('{"error": {"message": "no quota", "code": 402}}')), STOPS,
         "no quota", **STREAMED),
    kind(STREAM, "a piece that is not JSON", stream(events(*WHOLE[:2], "data: {busy")), RETRIED, "not JSON", **STREAMED),
]  # fmt: skip

KINDS = [*_NOT_JSON, *_ODD, *_THINKING, *_USAGE, *_FINISH, *_ERRORS, *_STATUSES, *_STREAMS]


def table() -> str:
    """The kinds and their endings, as Markdown; a heading a group."""
    lines: list[str] = []
    group = ""
    for one in KINDS:
        if one.group != group:
            group = one.group
            head = "| answer | `generate`, `judge`, `repair` | `eval` | `teachers test` |"
            lines += ["", f"## {group[0].upper()}{group[1:]}", "", head, "|---|---|---|---|"]
        lines.append(f"| {one.name} | {one.ending.ask} | {one.ending.eval} | {one.ending.test} |")
    return "\n".join([*lines, ""])
