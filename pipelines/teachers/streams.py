"""A streamed answer put together: server-sent events as servers really write them, and the reply that they add up to.

Reads bytes as they come; writes nothing. `pipelines/teachers/replies.py` then reads the whole as any other completion.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.teachers.completions import REASONING_FIELDS, read_content, reasoning_in, texts_in
from pipelines.teachers.finish_reasons import CUT
from pipelines.teachers.replies import ReplyFailure, ServerError, classified, error_in

_DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Events:
    """Bytes to the documents in their `data:` lines.

    Accepts any line ending, bytes split anywhere, `data:` with and without a space, comments, a document over several
    lines, several documents without a blank line between them, and a document without `data:` (a proxy's error).
    """

    def __init__(self) -> None:
        self._bytes: list[bytes] = []
        self._lines: list[str] = []
        self._name = ""
        self.done = False

    def feed(self, piece: bytes) -> Iterator[tuple[str, object]]:
        """The events that a piece completes: the event's name, and its document.

        Raises:
            ReplyFailure: an event is no JSON.
        """
        self._bytes.append(piece)
        if b"\n" not in piece and b"\r" not in piece:
            return
        text = b"".join(self._bytes)
        # A line feed may follow with the next piece.
        held = text.endswith(b"\r")
        *lines, rest = _LINE_END.split(text[:-1] if held else text)
        self._bytes = [rest + b"\r" if held else rest]
        for line in lines:
            yield from self._take(line.decode("utf-8", "replace"))

    def end(self) -> Iterator[tuple[str, object]]:
        """The event that the end of the body completes. Half of one is not an error: the stream was cut."""
        for line in _LINE_END.split(b"".join(self._bytes)):
            yield from self._take(line.decode("utf-8", "replace"))
        self._bytes = []
        if self._lines and (whole := _json("\n".join(self._lines))) is not None:
            yield self._name, whole

    def _take(self, line: str) -> Iterator[tuple[str, object]]:
        if not line:
            if self._lines:
                text = "\n".join(self._lines)
                self._lines = []
                if (document := _json(text)) is None and text.strip():
                    raise ReplyFailure("retry", "broken reply: a piece of the stream is not JSON")
                yield self._name, document
            self._name = ""
            return
        if line.startswith("event:"):
            self._name = line.removeprefix("event:").strip()
        elif line.startswith(("data:", "{")):
            text = line.removeprefix("data:").removeprefix(" ")
            if text.strip() == _DONE:
                self.done = True
            elif not self._lines and text.startswith("{") and (document := _json(text)) is not None:
                yield self._name, document
            else:
                self._lines.append(text)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class StreamedReply:
    """The pieces of one answer. `started`: some text came."""

    def __init__(self, key: str = "") -> None:
        self._key = key
        self._events = Events()
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: dict[str, list[str]] = {}
        self._usage: object = None
        self._finish: object = None
        self._tools = False
        self._logprobs: list[object] = []
        self._whole: Mapping[str, Any] | None = None
        self.started = False

    def feed(self, piece: bytes) -> bool:
        """Take bytes in; whether they completed an event.

        Raises:
            ReplyFailure: an event is an error, or no JSON.
        """
        return self._take_all(self._events.feed(piece))

    def _take_all(self, events: Iterator[tuple[str, object]]) -> bool:
        found = False
        for name, document in events:
            found = True
            self._take(name, document)
        return found

    def _take(self, name: str, document: object) -> None:
        error = error_in(document, refused=name == "error")
        if error is None and name == "error":
            error = ServerError("an error in the middle of a stream")
        if error is not None:
            raise classified(error.status, error, {}, self._key)
        if not isinstance(document, Mapping):
            return
        if isinstance(document.get("usage"), Mapping):
            self._usage = document["usage"]
        choices = document.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return
        choice = choices[0]
        if choice.get("index") in (None, 0):
            self._take_choice(choice, document)

    def _take_choice(self, choice: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        self._finish = choice.get("finish_reason") or self._finish
        given = choice.get("logprobs")
        if isinstance(given, Mapping) and isinstance(given.get("content"), list):
            self._logprobs += given["content"]
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            if isinstance(choice.get("message"), Mapping):
                self._whole = document
                self.started = True
            delta = {"content": choice.get("text")}
        parts = read_content(delta.get("content"))
        found = reasoning_in(delta)
        if parts.reasoning:
            found["thinking"] = "".join(parts.reasoning)
        self._content += parts.text
        self._refusal += parts.refusal
        self._refusal += texts_in(delta.get("refusal"))
        for field, text in found.items():
            self._reasoning.setdefault(field, []).append(text)
        self._tools = self._tools or bool(delta.get("tool_calls") or delta.get("function_call"))
        self.started = self.started or self._tools or any([*parts.text, *self._refusal, *found.values()])

    def document(self, cut: bool) -> object:
        """The completion that the pieces add up to. A stream without a finish reason, a `[DONE]` or a proper end has
        the finish reason "cut".

        Raises:
            ReplyFailure: nothing came that could be kept.
        """
        self._take_all(self._events.end())
        if self._whole is not None and not self._content:
            return self._whole
        whole = bool(self._finish) or (self._events.done and not cut)
        if not self.started and not self._finish:
            raise ReplyFailure("retry", "broken reply: a stream without an answer in it")
        message: dict[str, Any] = {"content": "".join(self._content)}
        if refusal := "".join(self._refusal):
            message["refusal"] = refusal
        for field in REASONING_FIELDS:
            if field in self._reasoning:
                message[field] = "".join(self._reasoning[field])
        if self._tools:
            message["tool_calls"] = True
        finish = self._finish if whole else CUT
        choice = {"message": message, "finish_reason": finish, "logprobs": {"content": self._logprobs}}
        return {"choices": [choice], "usage": self._usage}
