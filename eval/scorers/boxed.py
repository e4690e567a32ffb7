r"""The final answer of a mathematical solution: what the last `\boxed{...}` of it holds.

Reads a text and writes nothing; `eval/scorers/mathematics.py` gives it the answer part of a response.
"""

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# `\boxed 5`, `\boxed\pi`: TeX takes one token where there is no brace; people who write this mean the whole number.
_BARE = re.compile(r"\\[A-Za-z]+|-?[0-9][0-9.,]*(?<![.,])|[^\s{}$\\]")


def last_boxed(text: str) -> str | None:
    r"""The contents of the last `\boxed` or `\fbox` of a text, without the white space around it.

    Braces are balanced, escaped ones (`\{`) are letters. A box that never closes is passed over for the one before it;
    None where there is no box with anything in it.
    """
    ends = _closing(text)
    for box in reversed(list(_BOX.finditer(text))):
        start = box.end()
        if text[start : start + 1] == "{":
            content = text[start + 1 : ends[start]] if start in ends else ""
        else:
            bare = _BARE.match(text, start)
            content = bare.group() if bare else ""
        if content.strip():
            return content.strip()
    return None


def _closing(text: str) -> dict[int, int]:
    """Where each opening brace is closed. One pass: a text of thousands of open boxes must not cost their square."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for mark in _ESCAPED_OR_BRACE.finditer(text):
        if mark.group() == "{":
            opened.append(mark.start())
        elif mark.group() == "}" and opened:
            ends[opened.pop()] = mark.start()
    return ends
