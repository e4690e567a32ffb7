"""One splitter and one joiner of reasoning and answer, used by every stage.

A row keeps reasoning and answer apart; the one string that is trained on, shown to judges and served is `join`'s.
What other families of models write around their reasoning is in `pipelines/reasoning_families.py`, and marks that an
ordinary answer may have too are in `pipelines/thought_headings.py`.
"""

import re
import string
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from pipelines.reasoning_families import ANSWER_MARKS, FAMILIES, HARMONY_CHANNEL, Family
from pipelines.thought_headings import before_answer, under_headings

_BLANK = string.whitespace + "\u00a0\u200b\u200c\u200d\u2060\ufeff"
OPEN, CLOSE = FAMILIES[0].opener, FAMILIES[0].closer
# One message of harmony's: its channel, and its text up to the next token that ends or begins a message.
_HARMONY = re.compile(
    r"<\|channel\|>(?P<channel>\w*)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?)"
    r"(?=<\|end\|>|<\|return\|>|<\|call\|>|<\|start\|>|<\|channel\|>|\Z)",
    re.DOTALL,
)
_HARMONY_END = re.compile(r"(?:<\|end\|>)?(?:<\|start\|>)?(?:assistant)?\Z")
# Without its special tokens. The word alone opens an ordinary answer too; run into a capital letter it does not.
_STRIPPED_CLOSER = "assistantfinal"
_STRIPPED_OPENER = re.compile(r"analysis(?=[A-Z\"'])")

# Where a server puts reasoning: anywhere; in a field only; inline only; inline with the opener in the prompt, so that
# content without a closing tag is a thought cut short; nowhere.
ReasoningStyle = Literal["auto", "field", "inline", "missing_opener", "none"]
ReasoningKey = Literal["inline", "reasoning_content", "thinking"]
"""Where a conversation has a turn's reasoning: within the content, or under a key beside it."""
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
    import pyarrow.compute as pc

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
    that holds text wins over tags in `content`, and a leading block there that repeats it goes. Inline, in the marks of
    any family of `reasoning_families.py`: a leading block, nested tags kept inside it, several leading blocks joined by
    a blank line; a missing opener (R1's templates put it into the prompt); a block never closed (truncated: all of it
    is reasoning, the answer is empty).
    A mark around the whole answer (`<answer>`) goes. Tags further on stay in the answer, where a quality check finds
    them. `split(join(r, a))` gives back r and a, character for character, for an r with balanced tags and an a that
    opens with none. A `style` other than "auto" rules the other forms out.
    """
    text = content or ""
    if style in ("auto", "field"):
        if reasoning_content:
            return Thought(reasoning_content, _unwrapped(_once(text, reasoning_content)), "reasoning_content")
        if reasoning:
            return Thought(reasoning, _unwrapped(_once(text, reasoning)), "reasoning")
    if style in ("field", "none"):
        return Thought("", text, "none")
    found = _leading(text) or _harmony(text) or _stripped_harmony(text) or _without_opener(text) or _in_words(text)
    if found is not None:
        return Thought(found.reasoning, _unwrapped(found.answer), found.source)
    if style == "missing_opener":
        return Thought(_trim_block(text), "", "truncated")
    return Thought("", text, "none")


def _once(text: str, reasoning: str) -> str:
    """Content without a leading block that some servers fill with what is in the field too."""
    found = _leading(text)
    return found.answer if found is not None and found.reasoning.split() == reasoning.split() else text


def _leading(text: str) -> Thought | None:
    """Blocks of one family at the beginning; characters without width, which some servers put there, are none of it."""
    start = text.lstrip(_BLANK)
    for family in FAMILIES:
        if start.startswith(family.opener) and (not family.phrases or family.closer in start):
            return _blocks(start, family)
    return None


def _without_opener(text: str) -> Thought | None:
    """A closing tag whose opener is in the prompt."""
    for family in FAMILIES:
        if family.phrases:
            continue
        before, tag, after = text.partition(family.closer)
        if tag and family.opener not in before:
            return Thought(_trim_block(before), _trim_answer(after), "missing_opener")
    return None


def _harmony(text: str) -> Thought | None:
    """Harmony's channels: what is on `final` is the answer, everything before it the reasoning."""
    if HARMONY_CHANNEL in text:
        messages = list(_HARMONY.finditer(text))
        if not messages:
            return None
        answer = "".join(found["text"] for found in messages if found["channel"] == "final")
        thoughts = [found["text"] for found in messages if found["channel"] != "final"]
        opening = _HARMONY_END.sub("", text[: messages[0].start()])
        ended = any(found["channel"] == "final" for found in messages)
        if opening.strip():
            return Thought("\n\n".join([opening, *thoughts]), answer, "missing_opener" if ended else "truncated")
        if not thoughts:
            return Thought("", answer, "none")
        return Thought("\n\n".join(thoughts), answer, "inline" if ended else "truncated")
    return None


def _stripped_harmony(text: str) -> Thought | None:
    """What is left of harmony's channels without their tokens."""
    start = text.lstrip()
    opened = _STRIPPED_OPENER.match(start)
    before, closer, after = start.partition(_STRIPPED_CLOSER)
    if closer:
        return Thought(before.removeprefix("analysis"), after, "inline" if opened else "missing_opener")
    return Thought(start[opened.end() :], "", "truncated") if opened else None


def _in_words(text: str) -> Thought | None:
    """What `pipelines/thought_headings.py` finds."""
    found = under_headings(text) or before_answer(text)
    return Thought(*found, "inline") if found else None


def _blocks(text: str, family: Family) -> Thought:
    blocks: list[str] = []
    rest = text
    while not blocks or rest.lstrip().startswith(family.opener):
        body = rest.lstrip().removeprefix(family.opener)
        end = _end_of_block(body, family)
        if end is None:
            blocks.append(_trim_block(body))
            return Thought("\n\n".join(blocks), "", "truncated")
        blocks.append(_trim_block(body[:end]))
        rest = body[end + len(family.closer) :]
    return Thought("\n\n".join(blocks), _trim_answer(rest), "inline")


def _end_of_block(body: str, family: Family) -> int | None:
    """Where the closing tag of an opened block is: the balanced one, or the last where openers are unbalanced."""
    depth = 1
    last = None
    for tag in re.finditer(f"{re.escape(family.opener)}|{re.escape(family.closer)}", body):
        if tag.group() == family.closer:
            depth -= 1
            last = tag.start()
            if depth == 0:
                return last
        else:
            depth += 1
    return last


def _unwrapped(answer: str) -> str:
    """An answer without a mark around the whole of it; one that was cut off has no closing mark."""
    text = answer.strip()
    for opener, closer in ANSWER_MARKS:
        if text.startswith(opener):
            body = text.removeprefix(opener)
            if body.find(closer) in (-1, len(body) - len(closer)):
                return body.removesuffix(closer).strip("\n")
    return answer


def _trim_block(block: str) -> str:
    return block.removeprefix("\n").removesuffix("\n")


def _trim_answer(answer: str) -> str:
    return answer.removeprefix("\n").removeprefix("\n")
