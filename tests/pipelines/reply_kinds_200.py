"""Kinds of answers with the status 200, but for those that end in an unusual way."""

import gzip
import json

from tests.pipelines.reply_bodies import (
    COUNTED,
    CUT,
    RETRIED,
    TEXT,
    THOUGHT,
    WHOLE,
    chunked,
    completion,
    events,
    good,
    http,
    kind,
    stream,
)

BODY = json.dumps(completion()).encode()
BROKEN = "a 200 that is no reply"
NOT_JSON = [
    kind(BROKEN, "an empty body", http(b""), RETRIED, "an empty body"),
    kind(BROKEN, "blank lines only", http(b"\n\n\n\n"), RETRIED, "blank lines only"),
    kind(BROKEN, "half a document", http(BODY[:50]), RETRIED, "not JSON"),
    kind(
        BROKEN, "a page of HTML", http(b"<html><style>b{}</style><b>busy</b></html>", kind="text/html"), RETRIED, "busy"
    ),
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
ODD_ONES = [
    kind(
        ODD, "a whole answer", good(), holds={"content": TEXT, "finish_reason": "stop", "input_tokens": 7, "notes": ""}
    ),
    kind(ODD, "blank lines, then an answer", http(b"\n\n \n" + BODY)),
    kind(ODD, "no content-type", http(BODY, kind=None)),
    kind(ODD, "a byte order mark", http(b"\xef\xbb\xbf" + BODY)),
    kind(ODD, "UTF-16", http(BODY.decode().encode("utf-16"))),
    kind(ODD, "gzip", http(gzip.compress(BODY), headers=("Content-Encoding: gzip",))),
    kind(
        ODD, "half a character", http(BODY.replace(b"75", b"\xe2\x82")), holds={"content": "It takes \ufffd minutes."}
    ),
    kind(ODD, "half a surrogate pair", good({"content": "a\ud83d."}), holds={"content": "a\ufffd."}),
    kind(ODD, "NUL", good({"content": "a\0b"}), holds={"content": "a\ufffdb"}),
    kind(ODD, "an event stream that was not asked for", stream(events(*WHOLE, COUNTED))),
    kind(ODD, "an event stream as JSON", http(events(*WHOLE)), holds={"content": TEXT, "notes": "no usage"}),
    kind(ODD, "several choices", good(choices=[completion()["choices"][0], {"message": {"content": "b"}}])),
    kind(ODD, "text in place of a message", good(choices=[{"text": TEXT, "finish_reason": "stop"}])),
    kind(ODD, "content in parts", good({"content": [{"type": "text", "text": "It takes "}, "75 minutes."]})),
    kind(
        ODD,
        "thinking in parts",
        good(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
                    {"type": "text", "text": TEXT},
                ]
            }
        ),
        holds={"content": TEXT, "reasoning": THOUGHT},
    ),
    kind(ODD, "content that is a number", good({"content": 75}), holds={"content": "75"}),
    kind(ODD, "content that is an object", good({"content": {"minutes": 75}}), holds={"content": '{"minutes": 75}'}),
    kind(ODD, "empty content with stop", good({"content": ""}), holds={"content": "", "finish_reason": "stop"}),
    kind(ODD, "null content with stop", good({"content": None}), holds={"content": ""}),
    kind(
        ODD,
        "a refusal",
        good({"content": None, "refusal": "I cannot."}),
        holds={"content": "I cannot.", "refusal": True},
    ),
    kind(
        ODD,
        "a refusal in parts beside blank content",
        good({"content": " ", "refusal": [{"type": "refusal", "refusal": "No."}]}),
        holds={"content": "No.", "refusal": True},
    ),
    kind(
        ODD, "a refusal in parts", good({"content": [{"type": "refusal", "refusal": "No."}]}), holds={"content": "No."}
    ),
    kind(
        ODD,
        "tool calls without content",
        good({"content": None, "tool_calls": [{}]}, "tool_calls"),
        CUT,
        {"content": "", "finish_reason": "tool_calls"},
    ),
    kind(ODD, "an empty error beside an answer", good(error=None)),
]

THINKING = "reasoning"
THINKING_ONES = [
    *(
        kind(THINKING, f"in `{name}`", good({"content": TEXT, name: value}), holds={"content": TEXT, slot: THOUGHT})
        for name, value, slot in (
            ("reasoning_content", THOUGHT, "reasoning_content"),
            ("reasoning", THOUGHT, "reasoning"),
            ("thinking", THOUGHT, "reasoning"),
            ("reasoning_details", [{"type": "reasoning.text", "text": THOUGHT}], "reasoning"),
        )
    ),
    kind(
        THINKING,
        "in `reasoning`, as parts",
        good({"content": TEXT, "reasoning": [{"type": "text", "text": THOUGHT}]}),
        holds={"content": TEXT, "reasoning": THOUGHT},
    ),
    kind(
        THINKING,
        "in a part that is called a thought",
        good({"content": [{"text": THOUGHT, "thought": True}, {"text": TEXT}]}),
        holds={"content": TEXT, "reasoning": THOUGHT},
    ),
    kind(
        THINKING,
        "as a summary",
        good({"content": TEXT, "reasoning_details": [{"summary": THOUGHT}]}),
        holds={"reasoning": THOUGHT},
    ),
    kind(
        THINKING,
        "encrypted",
        good({"content": TEXT, "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
        holds={"content": TEXT, "reasoning": None},
    ),
    kind(
        THINKING,
        "in a field, without an answer",
        good({"content": None, "reasoning": THOUGHT}, "length"),
        CUT,
        {"content": "", "reasoning": THOUGHT},
    ),
    kind(
        THINKING,
        "inline",
        good({"content": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}"}),
        holds={"content": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}"},
    ),
]

COUNTS = "usage"
USAGE = [
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
