"""One splitter and one joiner of reasoning and answer, used by every stage.

A row keeps reasoning and answer apart; the one string that is trained on, shown to judges and served is `join`'s.
"""

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

OPEN, CLOSE = "<think>", "</think>"
_TAG = re.compile(r"<think>|</think>")

# Where a server puts reasoning: anywhere; in a field only; inline only; inline with the opener in the prompt, so that
# content without a closing tag is a thought cut short; nowhere.
ReasoningStyle = Literal["auto", "field", "inline", "missing_opener", "none"]
Source = Literal["reasoning_content", "reasoning", "inline", "missing_opener", "truncated", "fixed", "none"]


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning and answer of one response, and where the reasoning was found."""

    reasoning: str
    answer: str
    source: Source


def join(reasoning: str, answer: str) -> str:
    """The canonical string. Any other spacing breaks the training prefix of R1's chat templates."""
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n{answer}"


def join_columns(reasoning: pa.ChunkedArray, answer: pa.ChunkedArray) -> pa.Array:
    """`join` of two columns of text, row by row."""
    parts = (f"{OPEN}\n", reasoning, f"\n{CLOSE}\n\n", answer, "")
    joined = pc.binary_join_element_wise(*(pc.cast(p, pa.string()) if not isinstance(p, str) else p for p in parts))
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def split(
    content: str | None,
    reasoning_content: str | None = None,
    reasoning: str | None = None,
    style: ReasoningStyle = "auto",
) -> Thought:
    """Take a reply apart, whichever way the server put its reasoning in.

    The two keyword arguments are the reply's fields of those names (DeepSeek and older vLLM, newer vLLM); a field
    that holds text wins over tags in `content`. Inline: a leading block, nested tags kept inside it, several leading
    blocks joined by a blank line; a missing opener (R1's templates put it into the prompt); a block never closed
    (truncated: all of it is reasoning, the answer is empty). Tags further on stay in the answer, where a quality
    check finds them. `split(join(r, a))` gives back r and a, character for character, for an r with balanced tags.
    A `style` other than "auto" rules the other forms out.
    """
    text = content or ""
    if style in ("auto", "field"):
        if reasoning_content:
            return Thought(reasoning_content, text, "reasoning_content")
        if reasoning:
            return Thought(reasoning, text, "reasoning")
    if style in ("field", "none"):
        return Thought("", text, "none")
    if text.lstrip().startswith(OPEN):
        return _split_inline(text)
    before, tag, after = text.partition(CLOSE)
    if tag and OPEN not in before:
        return Thought(_trim_block(before), _trim_answer(after), "missing_opener")
    if style == "missing_opener" and not tag:
        return Thought(_trim_block(text), "", "truncated")
    return Thought("", text, "none")


def _split_inline(text: str) -> Thought:
    blocks: list[str] = []
    rest = text
    while not blocks or rest.lstrip().startswith(OPEN):
        body = rest.lstrip().removeprefix(OPEN)
        end = _end_of_block(body)
        if end is None:
            blocks.append(_trim_block(body))
            return Thought("\n\n".join(blocks), "", "truncated")
        blocks.append(_trim_block(body[:end]))
        rest = body[end + len(CLOSE) :]
    return Thought("\n\n".join(blocks), _trim_answer(rest), "inline")


def _end_of_block(body: str) -> int | None:
    """Where the closing tag of an opened block stands: the balanced one, or the last where openers are unbalanced."""
    depth = 1
    last = None
    for tag in _TAG.finditer(body):
        if tag.group() == CLOSE:
            depth -= 1
            last = tag.start()
            if depth == 0:
                return last
        else:
            depth += 1
    return last


def _trim_block(block: str) -> str:
    return block.removeprefix("\n").removesuffix("\n")


def _trim_answer(answer: str) -> str:
    return answer.removeprefix("\n").removeprefix("\n")
