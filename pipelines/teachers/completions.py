"""What a chat completion says, in every shape that servers give it: text, reasoning, why it ended, tokens.

Reads a parsed document; writes nothing. `pipelines/teachers/replies.py` decides first whether an answer is one at all.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.settings.teacher import Price
from pipelines.teachers.finish_reasons import finish_of
from pipelines.teachers.reply import Reply

# Where servers put reasoning, in the order of trust: DeepSeek and older vLLM; newer vLLM and OpenRouter; OpenRouter's
# list of parts; Ollama's own name; LiteLLM's.
REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
# No model has read or written so many tokens; sums of what servers count stay within 64 bits.
_MOST_TOKENS = 2**31


class BrokenReply(Exception):
    """A document that is no chat completion."""


@dataclass(slots=True)
class Parts:
    """The texts of a message, by what they are; `unread` names the kinds of parts that hold no text."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def reply_of(document: object, price: Price | None, latency_s: float, first_token_s: float | None = None) -> Reply:
    """A completion as the ledger keeps it.

    Text comes from `content` (a string, a list of parts, or whatever else as JSON); where that is empty, a `refusal`
    is the answer. Reasoning comes from any of `REASONING_FIELDS`, or from parts of the content. The first choice
    counts. Tokens that are no counts are 0, and `notes` says what was odd.

    Raises:
        BrokenReply: it is none.
    """
    choice, message = _chosen(document)
    notes: list[str] = []
    parts = read_content(message.get("content"))
    if not isinstance(message.get("content"), str | None):
        notes.append(f"content is {_kind(message['content'])}")
    if parts.unread:
        notes.append(f"not read: {', '.join(sorted(parts.unread))}")
    content = "".join(parts.text)
    refused = "".join(texts_in(message.get("refusal"))) or "".join(parts.refusal)
    is_refusal = not content.strip() and bool(refused)
    if is_refusal:
        content = refused
        notes.append("the answer is a refusal")
    found = dict(_reasoning(message, parts))
    finish = finish_of(choice.get("finish_reason"))
    calls = message.get("tool_calls") or message.get("function_call")
    if not content and not found and not calls and not finish and "content" not in message:
        raise BrokenReply(f"a message without anything in it: {_shown(message)}")
    if parts.unread and not content and not found:
        raise BrokenReply(f"content holds no text, but {', '.join(sorted(parts.unread))}")
    if calls and not content:
        finish = "tool_calls"
    other = next((text for name, text in found.items() if name != "reasoning_content"), None)
    tokens = _tokens(document.get("usage") if isinstance(document, Mapping) else None, notes)
    return Reply(
        content=cleaned(content) if content or "content" in message else None,
        reasoning_content=cleaned(found["reasoning_content"]) if "reasoning_content" in found else None,
        reasoning=cleaned(other) if other else None,
        finish_reason=finish,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cost=price.of(*tokens) if price else None,
        latency_s=latency_s,
        cached_tokens=tokens[2],
        first_token_s=first_token_s,
        notes="; ".join(notes),
        refusal=is_refusal,
        logprobs=_logprobs(choice),
    )


def _logprobs(choice: Mapping[str, Any]) -> str:
    """The tokens of the content with their log-probabilities, "" where there are none or they are not that."""
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, Mapping) else None
    if not isinstance(content, list) or not content:
        return ""
    pairs = [(one.get("token"), one.get("logprob")) for one in content if isinstance(one, Mapping)]
    kept = [
        [cleaned(token), min(float(value), 0.0)]
        for token, value in pairs
        if isinstance(token, str) and isinstance(value, int | float) and math.isfinite(value)
    ]
    return json.dumps(kept, ensure_ascii=False) if len(kept) == len(content) else ""


def _chosen(document: object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice, and its message."""
    if not isinstance(document, Mapping):
        raise BrokenReply(f"not a chat completion but {_kind(document)}: {_shown(document)}")
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BrokenReply(f"a chat completion without choices: {_shown(document)}")
    choice = choices[0]
    if not isinstance(choice, Mapping):
        raise BrokenReply(f"a choice that is {_kind(choice)}: {_shown(choice)}")
    for name in ("message", "delta"):
        if isinstance(message := choice.get(name), Mapping):
            return choice, message
    if isinstance(choice.get("text"), str):
        return choice, {"content": choice["text"]}
    raise BrokenReply(f"a choice without a message: {_shown(choice)}")


def read_content(content: object) -> Parts:
    """The texts in a message's content: a string, a list of parts (Mistral's reasoning models), or any other value,
    which counts as its JSON (servers that parse what a model wrote as JSON)."""
    parts = Parts()
    if isinstance(content, list):
        for part in content:
            _take_part(part, parts)
    elif isinstance(content, Mapping) and isinstance(content.get("text"), str):
        parts.text.append(content["text"])
    elif content is not None:
        parts.text.append(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    return parts


def _take_part(part: object, parts: Parts) -> None:
    if isinstance(part, str):
        parts.text.append(part)
        return
    if not isinstance(part, Mapping):
        parts.unread.add(_kind(part))
        return
    kind = str(part.get("type", "text"))
    if isinstance(part.get("refusal"), str):
        parts.refusal.append(part["refusal"])
    elif kind.startswith(("thinking", "reasoning")) or "thinking" in part or part.get("thought") is True:
        parts.reasoning.append("".join(texts_in(part)))
    elif isinstance(part.get("text"), str):
        parts.text.append(part["text"])
    else:
        parts.unread.add(kind[:40])


def _reasoning(message: Mapping[str, Any], parts: Parts) -> Iterator[tuple[str, str]]:
    """Every field that holds reasoning, with its text."""
    for name in REASONING_FIELDS:
        if text := "".join(texts_in(message.get(name))):
            yield name, text
    if text := "".join(parts.reasoning):
        yield "parts", text


def texts_in(value: object) -> Iterator[str]:
    """The texts in a string, or in parts of any depth; what is encrypted has none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from texts_in(one)
    elif isinstance(value, Mapping):
        for name in ("text", "thinking", "reasoning", "content", "summary", "refusal"):
            if name in value:
                yield from texts_in(value[name])
                return


def reasoning_in(message: Mapping[str, Any]) -> dict[str, str]:
    """The reasoning of a piece of a stream, by the field that it came in."""
    return {name: text for name in REASONING_FIELDS if (text := "".join(texts_in(message.get(name))))}


def _tokens(usage: object, notes: list[str]) -> tuple[int, int, int]:
    """Tokens of input and output, and how many of the input were cached; 0 for what is no count."""
    if not isinstance(usage, Mapping):
        notes.append("no usage")
        return 0, 0, 0
    odd: list[str] = []

    def count(*names: str) -> int:
        for name in names:
            if name in usage:
                found = _count(usage[name])
                if found is None:
                    odd.append(name)
                return found or 0
        odd.append(names[0])
        return 0

    read = count("prompt_tokens", "input_tokens")
    written = count("completion_tokens", "output_tokens")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else usage.get("prompt_cache_hit_tokens")
    if odd:
        notes.append(f"usage without {' and '.join(odd)}")
    return read, written, min(_count(cached) or 0, read)


def _count(value: object) -> int | None:
    """A count of tokens; None for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS else None


def cleaned(text: str) -> str:
    """A text that every store can hold: halves of a surrogate pair are joined; alone, they are replaced, as NUL is."""
    with suppress(UnicodeEncodeError):  # halves of a pair cannot be encoded
        text.encode()
        if "\0" not in text:
            return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:200]
    except (RecursionError, ValueError, TypeError):
        return type(value).__name__
