"""The OpenAI protocol as the rehearsal server speaks it: requests checked, performances laid out as completions.

A token is a run of letters and digits or one other visible character. That is this server's whole count, for usage and
for `max_tokens` alike; the tags of inline reasoning are not counted.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.prompts.variant import Message
from pipelines.rehearsal.faults import Style
from pipelines.rehearsal.performer import GENERAL_MODEL
from pipelines.thinking import CLOSE, OPEN, join

_TOKEN = re.compile(r"\w+|[^\w\s]")
# Tokens in one chunk of a streamed answer.
_CHUNK = 8


class BadRequest(Exception):
    """A request that is not a chat request; the message says what is wrong with it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _TextPart(_Part):
    type: Literal["text"]
    text: str


class _ChatMessage(_Part):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_TextPart] | None = None


class _StreamOptions(_Part):
    include_usage: bool = False


class ChatRequest(_Part):
    """The fields that are read; others are accepted and change nothing, as sampling parameters do."""

    model: str
    messages: list[_ChatMessage] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: dict[str, Any] | None = None

    @property
    def structured(self) -> bool:
        """Whether JSON is asked for."""
        return (self.response_format or {}).get("type") in ("json_object", "json_schema")

    def chat(self) -> list[Message]:
        """The messages as plain texts; `developer` is today's name of `system`."""
        messages: list[Message] = []
        for message in self.messages:
            parts = message.content or ""
            text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
            if message.role in ("system", "developer"):
                messages.append(Message(role="system", content=text))
            else:
                messages.append(Message(role="assistant" if message.role == "assistant" else "user", content=text))
        return messages

    def limit(self) -> int | None:
        """Most tokens of one answer, reasoning included."""
        return self.max_completion_tokens or self.max_tokens


def parse(body: bytes) -> ChatRequest:
    """A request's body.

    Raises:
        BadRequest: it is not JSON, or not a chat request.
    """
    try:
        return ChatRequest.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise BadRequest(f"{where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from error


def count_tokens(text: str) -> int:
    """Tokens of a text, by this server's count."""
    return len(_TOKEN.findall(text))


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer as it is sent: `content` with the reasoning inside it, or beside it in `field`."""

    content: str
    field: str
    reasoning: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    reasoning_tokens: int

    def message(self) -> dict[str, Any]:
        """The message of a completion."""
        message = {"role": "assistant", "content": self.content}
        return {**message, self.field: self.reasoning} if self.field else message

    def deltas(self) -> Iterator[dict[str, str]]:
        """The message in pieces, reasoning first, for a streamed completion."""
        yield {"role": "assistant", "content": ""}
        for name, text in ((self.field, self.reasoning), ("content", self.content)):
            if name:
                ends = [token.end() for token in _TOKEN.finditer(text)][_CHUNK - 1 :: _CHUNK]
                for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
                    if end > start:
                        yield {name: text[start:end]}


def choice(model: str, style: Style, reasoning: str, answer: str, limit: int | None) -> Choice:
    """Lay out one answer, cut off after `limit` tokens where it is longer."""
    all_reasoning, all_answer = count_tokens(reasoning), count_tokens(answer)
    finish: Literal["stop", "length"] = "stop"
    closed = True
    if limit is not None and limit < all_reasoning + all_answer:
        finish = "length"
        closed = limit >= all_reasoning
        reasoning, answer = _first(reasoning, limit), _first(answer, limit - all_reasoning)
    tokens = count_tokens(reasoning)
    if model == GENERAL_MODEL:
        style = "inline"
    field, content = "", answer
    if not reasoning:
        pass
    elif style == "inline":
        content = join(reasoning, answer) if closed else f"{OPEN}\n{reasoning}"
    elif style == "missing_opener":
        content = f"{reasoning}\n{CLOSE}\n\n{answer}" if closed else reasoning
    else:
        field = style
    return Choice(content, field, reasoning, finish, tokens + count_tokens(answer), tokens)


def _first(text: str, tokens: int) -> str:
    """The beginning of a text, up to a number of tokens."""
    if tokens <= 0:
        return ""
    ends = [token.end() for token in _TOKEN.finditer(text)]
    return text if len(ends) <= tokens else text[: ends[tokens - 1]]


def usage(prompt_tokens: int, choices: list[Choice]) -> dict[str, Any]:
    """The usage of a completion, over all its choices."""
    completion = sum(item.tokens for item in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "completion_tokens_details": {"reasoning_tokens": sum(item.reasoning_tokens for item in choices)},
    }


def error(
    message: str, kind: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> bytes:
    """An error as OpenAI words it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()
