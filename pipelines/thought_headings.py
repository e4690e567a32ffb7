"""Thought and answer under marks that an ordinary answer may have too, so that both must be there, each in its place.

Two forms: headings, `**Thinking:** ... **Answer:** ...`, the first at the very beginning, the other once; and a tag
such as <plan> before an <answer> around all of the rest. A plan with anything else behind it may be what was asked for,
and `Reasoning:` or `Analysis:` a part of the answer: both stay where they are.

Reads a text and writes nothing; `pipelines/thinking.py` asks it last.
"""

import re

_COLON = "[:\uff1a]"


def _heading(words: str) -> str:
    """The words in bold with a colon, in bold on a line of their own, or as a heading of Markdown."""
    return (
        rf"(?:\*\*\s*{words}\s*(?:{_COLON}\s*\*\*|\*\*\s*{_COLON})"
        rf"|^[ \t]*(?:\*\*\s*{words}\s*\*\*|#{{1,6}}[ \t]+(?:\*\*)?{words}\s*{_COLON}?(?:\*\*)?{_COLON}?)[ \t]*$)[ \t]*"
    )


_THOUGHT = re.compile(
    _heading(r"(?:(?:(?:my|the)\s+)?(?:thinking|thoughts?)(?:\s+process)?|\u601d\u8003(?:\u8fc7\u7a0b)?)"),
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(
    _heading(r"(?:(?:(?:my|the)\s+)?(?:final\s+)?(?:answer|response)|(?:\u6700\u7ec8)?(?:\u56de\u7b54|\u7b54\u6848))"),
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_ANSWER = re.compile(
    r"\s*<(?P<tag>plan|planning|analysis|rationale|reason|cot)>(?P<thought>(?:(?!</?(?P=tag)>).)*)</(?P=tag)>\s*"
    r"(?=<(?P<mark>answer|response)>)(?P<answer>.*)",
    re.DOTALL,
)


def under_headings(text: str) -> tuple[str, str] | None:
    """Thought and answer; None where these marks, or words behind either, are not there."""
    start = text.lstrip()
    opened = _THOUGHT.match(start)
    closed = list(_ANSWER.finditer(start, opened.end())) if opened else []
    if opened is None or len(closed) != 1:
        return None
    thought, answer = start[opened.end() : closed[0].start()], start[closed[0].end() :]
    return (thought.strip(), answer.strip("\n")) if thought.strip() and answer.strip() else None


def before_answer(text: str) -> tuple[str, str] | None:
    """Thought and answer, this one still in its mark; None where the mark is not around all of the rest."""
    found = _BEFORE_ANSWER.fullmatch(text)
    if found is None or not found["thought"].strip():
        return None
    body, closer = found["answer"].rstrip(), f"</{found['mark']}>"
    if body.count(closer) > 1 or (closer in body and not body.endswith(closer)):
        return None
    return found["thought"].strip("\n"), found["answer"]
