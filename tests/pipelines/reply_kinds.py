"""Every kind of answer that a server has been seen to give, as raw bytes, with the ending that it must have.

`KINDS` is played over a socket by test_replies.py, and is the table in docs/replies.md.
"""

from tests.pipelines.reply_bodies import (
    COUNTED,
    CUT,
    FOR_GOOD,
    KEY,
    MALFORMED,
    RETRIED,
    STOPS,
    SUSPECT,
    TEXT,
    THOUGHT,
    TOO_LONG,
    WAITED,
    WHOLE,
    delta,
    events,
    good,
    http,
    in_200,
    kind,
    refused,
    stream,
)
from tests.pipelines.reply_kinds_200 import NOT_JSON, ODD_ONES, THINKING_ONES, USAGE

STREAMED = {"stream": True}
ENDED = "finish reason"
FINISH = [
    *(
        kind(ENDED, name, good(finish=name))
        for name in ("eos", "stop_sequence", "end_turn", "endturn", "STOP", "COMPLETE", "FINISH_REASON_STOP")
    ),
    kind(ENDED, "an object", good(finish={"type": "stop"})),
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
            ("sensitive", "content_filter"),
            ("network_error", "network_error"),
            ("tool_calls", "tool_calls"),
            ("unknown", "unknown"),
            (None, ""),
        )
    ),
    kind(ENDED, "a number", good(finish=3), CUT, {"finish_reason": ""}),
]

IN_200 = "an error in a 200"
ERRORS = [
    kind(
        IN_200, "code 402", in_200({"error": {"message": "Insufficient credits", "code": 402}}), STOPS, "Insufficient c"
    ),
    kind(IN_200, "insufficient_quota", in_200({"error": {"message": "no", "code": "insufficient_quota"}}), STOPS),
    kind(IN_200, "code 429", in_200({"error": {"message": "slow down", "code": 429}}), WAITED, "slow down"),
    kind(IN_200, "code 502", in_200({"error": {"message": "down", "code": "502"}}), RETRIED, "down"),
    kind(IN_200, "code 400", in_200({"object": "error", "message": "bad", "code": 400}), MALFORMED, "bad"),
    kind(
        IN_200,
        "code 403, flagged",
        in_200({"error": {"message": "input was flagged", "code": 403}}),
        FOR_GOOD,
        "flagged",
    ),
    kind(IN_200, "a text", in_200({"error": "overloaded"}), RETRIED, "overloaded"),
    kind(IN_200, "`detail`", in_200({"detail": "overloaded"}), RETRIED, "overloaded"),
    kind(IN_200, "in a list", in_200([{"error": {"message": "internal", "code": 500}}]), RETRIED, "internal"),
    kind(
        IN_200,
        "in a choice",
        in_200({"choices": [{"error": {"message": "upstream", "code": 502}}]}),
        RETRIED,
        "upstream",
    ),
    kind(
        IN_200,
        "in a choice, beside an empty message",
        in_200({"choices": [{"error": {"message": "upstream", "code": 502}, "message": {"content": ""}}]}),
        RETRIED,
        "upstream",
    ),
    kind(
        IN_200,
        "`base_resp`",
        in_200({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        STOPS,
        "insufficient balance",
    ),
    kind(
        IN_200,
        "an upstream's words",
        in_200(
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 502,
                    "metadata": {"raw": '{"error": {"message": "no worker"}}'},
                }
            }
        ),
        RETRIED,
        "no worker",
    ),
]

STATUS = "a status"
LONG = "This model's maximum context length is 4096 tokens."
GEMINI = "You exceeded your current quota, please check your plan and billing details. Please retry in 3.2s."
STATUSES = [
    kind(STATUS, "400", refused(400), MALFORMED, "HTTP 400: it says no"),
    kind(STATUS, "400, over the context length", refused(400, LONG, code="context_length_exceeded"), TOO_LONG, "4096"),
    kind(STATUS, "400, content filter", refused(400, "The response was filtered", code="content_filter"), FOR_GOOD),
    kind(STATUS, "400, credit balance", refused(400, "Your credit balance is too low"), STOPS, "credit balance"),
    kind(STATUS, "401", refused(401), STOPS, "HTTP 401: it says no"),
    kind(STATUS, "402", refused(402, "Insufficient Balance"), STOPS, "Insufficient Balance"),
    kind(STATUS, "403", refused(403), SUSPECT, "HTTP 403"),
    kind(STATUS, "403, flagged by moderation", refused(403, "your input was flagged"), FOR_GOOD, "flagged"),
    kind(STATUS, "403, an expired key", refused(403, "The API key has expired"), STOPS, "expired"),
    kind(STATUS, "403, a key's limit", refused(403, "Key limit exceeded (total limit)"), STOPS, "Key limit"),
    kind(STATUS, "403, a rate limit", refused(403, "Rate limit exceeded"), WAITED, "Rate limit"),
    kind(STATUS, "404, no such model", refused(404, "The model `x` does not exist"), STOPS, "does not exist"),
    kind(STATUS, "404, a page", http(b"<h1>Not Found</h1>", 404, "text/html"), SUSPECT, "HTTP 404: Not Found"),
    kind(STATUS, "405", refused(405), SUSPECT),
    kind(STATUS, "408", refused(408), RETRIED),
    kind(STATUS, "409", refused(409), RETRIED),
    kind(STATUS, "413", refused(413, "Payload too large"), FOR_GOOD, "Payload"),
    kind(STATUS, "414", http(b"", 414), FOR_GOOD, "no words"),
    kind(
        STATUS,
        "422, FastAPI",
        http(b'{"detail": [{"loc": ["body", "seed"], "msg": "not a number"}]}', 422),
        MALFORMED,
        "body.seed: not a number",
    ),
    kind(STATUS, "425", refused(425), RETRIED),
    kind(STATUS, "429", refused(429, headers=("Retry-After: 0",)), WAITED, "HTTP 429"),
    kind(STATUS, "429, insufficient_quota", refused(429, "no", type="insufficient_quota"), STOPS),
    kind(STATUS, "429, a quota that comes back", refused(429, GEMINI, status="RESOURCE_EXHAUSTED"), WAITED, "quota"),
    kind(STATUS, "429, a day's limit", refused(429, "Rate limit exceeded: free-models-per-day"), STOPS, "per-day"),
    kind(
        STATUS,
        "429, in Chinese: in arrears",
        refused(429, "\u60a8\u7684\u8d26\u6237\u5df2\u6b20\u8d39", code="1113"),
        STOPS,
    ),
    kind(STATUS, "429, over a minute's tokens alone", refused(429, "Request too large on tokens per min"), TOO_LONG),
    kind(STATUS, "429, then an answer", (refused(429), good())),
    kind(STATUS, "451", refused(451), FOR_GOOD),
    kind(STATUS, "500", refused(500), RETRIED, "HTTP 500"),
    kind(STATUS, "500, then an answer", (refused(500), good())),
    kind(
        STATUS, "502, a page", http(b"<html><title>502 Bad Gateway</title></html>", 502, "text/html"), RETRIED, "Bad G"
    ),
    kind(STATUS, "503 with Retry-After", refused(503, headers=("Retry-After: 0",)), RETRIED, "HTTP 503"),
    kind(STATUS, "529", refused(529, "Overloaded"), RETRIED, "Overloaded"),
    kind(
        STATUS,
        "a redirect",
        http(b"", 302, headers=("Location: https://a:b@elsewhere.example/v1?key=c",)),
        SUSPECT,
        "redirects to https://elsewhere.example, which",
    ),
    kind(STATUS, "an error that repeats the key", refused(400, f"Bad token {KEY}"), MALFORMED, "Bad token (the key)"),
    kind(STATUS, "an error with control characters", refused(500, "a\x1b[2J\u202eb"), RETRIED, "a\\x1b[2J\\u202eb"),
    kind(STATUS, "an error of a megabyte", refused(500, "a" * 200_000), RETRIED, "a..."),
]

STREAM = "a stream"
CRLF = events(*WHOLE, COUNTED, space="", line="\r\n")
STREAMS = [
    kind(
        STREAM,
        "whole",
        stream(events(*WHOLE, COUNTED)),
        holds={"content": TEXT, "input_tokens": 7, "notes": ""},
        **STREAMED,
    ),
    kind(STREAM, "CRLF, no space after `data:`", stream(CRLF), **STREAMED),
    kind(STREAM, "bare CR", stream(events(*WHOLE, line="\r")), **STREAMED),
    kind(STREAM, "a byte at a time", stream(CRLF, pieces=len(CRLF)), **STREAMED),
    kind(
        STREAM,
        "split within a character",
        stream(
            events(delta("stop", content="für €")).replace(b"\\u20ac", "€".encode()).replace(b"\\u00fc", "ü".encode()),
            pieces=10**6,
        ),
        holds={"content": "für €"},
        **STREAMED,
    ),
    kind(
        STREAM, "comments and other fields", stream(events(": ping", *WHOLE[:2], ":", "id: 4", *WHOLE[2:])), **STREAMED
    ),
    kind(
        STREAM,
        "one document over several lines",
        stream(events(f'data: {{"choices": [{{"delta": {{"content":\ndata: "{TEXT}"}}, "finish_reason": "stop"}}]}}')),
        **STREAMED,
    ),
    kind(STREAM, "no blank lines between", stream(events(*WHOLE).replace(b"\n\n", b"\n")), **STREAMED),
    kind(STREAM, "without [DONE]", stream(events(*WHOLE, done=False)), **STREAMED),
    kind(STREAM, "cut after its finish reason", stream(events(*WHOLE, done=False), cut=True), **STREAMED),
    kind(
        STREAM,
        "without usage",
        stream(events(*WHOLE)),
        holds={"content": TEXT, "input_tokens": 0, "notes": "no usage"},
        **STREAMED,
    ),
    kind(
        STREAM,
        "halves of a surrogate pair",
        stream(events(delta(content="\ud83d"), delta("stop", content="\ude00"))),
        holds={"content": "\U0001f600"},
        **STREAMED,
    ),
    *(
        kind(
            STREAM,
            f"reasoning in `{name}`",
            stream(events(delta(**{name: value}), *WHOLE)),
            holds={"content": TEXT, slot: THOUGHT},
            **STREAMED,
        )
        for name, value, slot in (
            ("reasoning_content", THOUGHT, "reasoning_content"),
            ("reasoning", THOUGHT, "reasoning"),
            ("reasoning_details", [{"type": "reasoning.text", "text": THOUGHT}], "reasoning"),
            ("content", [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}], "reasoning"),
        )
    ),
    kind(
        STREAM,
        "a refusal",
        stream(events(delta(refusal="I "), delta("stop", refusal="cannot."))),
        holds={"content": "I cannot."},
        **STREAMED,
    ),
    kind(STREAM, "one piece of JSON in its place", good(), **STREAMED),
    kind(
        STREAM,
        "stream_options refused",
        (refused(400, "Unknown field: stream_options"), stream(events(*WHOLE))),
        **STREAMED,
    ),
    kind(
        STREAM,
        "cut in the middle",
        stream(events(*WHOLE[:2], done=False), cut=True),
        CUT,
        {"content": "It takes ", "finish_reason": "cut"},
        **STREAMED,
    ),
    kind(
        STREAM, "ended in the middle", stream(events(*WHOLE[:2], done=False)), CUT, {"finish_reason": "cut"}, **STREAMED
    ),
    kind(
        STREAM,
        "a stop in the middle",
        (stream(events(*WHOLE[:2], done=False), cut=True)[:-1], None),
        CUT,
        {"content": "It takes "},
        stream=True,
        idle_timeout_s=4,
        attempt_timeout_s=60,
    ),
    kind(STREAM, "[DONE] without a finish reason", stream(events(*WHOLE[:3])), CUT, {"finish_reason": ""}, **STREAMED),
    kind(STREAM, "cut off at the token limit", stream(events(*WHOLE[:3], delta("length"))), CUT, **STREAMED),
    kind(STREAM, "cut before anything came", stream(events(WHOLE[0], done=False), cut=True), RETRIED, **STREAMED),
    kind(STREAM, "nothing but a role", stream(events(WHOLE[0])), RETRIED, "without an answer", **STREAMED),
    kind(
        STREAM,
        "nothing but comments",
        stream(events(": a", ": b", done=False)),
        RETRIED,
        "without an answer",
        **STREAMED,
    ),
    kind(
        STREAM,
        "an error in the middle",
        stream(events(*WHOLE[:2], {"error": {"message": "worker died", "code": 500}})),
        RETRIED,
        "worker died",
        **STREAMED,
    ),
    kind(
        STREAM,
        "an `event: error`",
        stream(events('event: error\ndata: {"message": "overloaded"}')),
        RETRIED,
        "overloaded",
        **STREAMED,
    ),
    kind(
        STREAM,
        "an error without `data:`",
        stream(events('{"error": {"message": "no quota", "code": 402}}')),
        STOPS,
        "no quota",
        **STREAMED,
    ),
    kind(
        STREAM, "a piece that is not JSON", stream(events(*WHOLE[:2], "data: {busy")), RETRIED, "not JSON", **STREAMED
    ),
]

KINDS = [*NOT_JSON, *ODD_ONES, *THINKING_ONES, *USAGE, *FINISH, *ERRORS, *STATUSES, *STREAMS]


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
