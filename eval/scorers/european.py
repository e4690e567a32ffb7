r"""Notation of other countries as English has it: open intervals `]2, 3[`, semicolons between bounds, decimal commas.

Where a comma may be either, it stays one between two values: `2,5` is 2 and 5, unless the other answer is 2.5 or
5/2 (`decimal_beside`). What can be nothing else is changed: `0{,}5`, `3,05`, `]2, 3[`, `[0,5; 1]`.

Reads and writes nothing; `expressions.py` uses it.
"""

import re

_SIDE = r"(?:\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?)\s*)?"
_INTERVAL = re.compile(
    rf"{_SIDE}(?P<open>[\[\](]|\\[lr]brack(?![a-z]))\s*(?P<from>[^;\[\]]+?)\s*(?P<between>[,;])\s*(?P<to>[^;\[\]]+?)\s*"
    rf"{_SIDE}(?P<close>[\[\])]|\\[lr]brack(?![a-z]))"
)
_UNION = re.compile(r"\s*(?:\\cup(?![a-z])|\u222a)\s*")
_MEMBER = re.compile(r"[A-Za-z]\s*\\in\s*(?=[\[\]\\(])")
_COMMA = re.compile(r"(?<![0-9,.])([0-9]+),([0-9]+)(?![0-9,.])")
# A comma in braces is TeX's decimal one; digits in threes behind one are thousands. "05" is no
# value of a list.
_CERTAIN = re.compile(r"(?<![0-9,.}])([0-9]+)(?:\{,\}([0-9]{1,2}|[0-9]{4,})|,(0[0-9]|0[0-9]{3,}))(?![0-9,.{])")
_WITH_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+)(\s*\\?%)?")
_ONE_VALUE = re.compile(
    r"[+-]?(?:[0-9]+\.[0-9]+(?:\s*\\?%)?|[0-9]+/[0-9]+|\\[dt]?frac(?:\{[0-9]+\}|\s*[0-9])(?:\{[0-9]+\}|\s*[0-9]))"
)


def english(text: str) -> str:
    """A final answer with points for certain decimal commas, and with its intervals in English."""
    text = _CERTAIN.sub(lambda found: f"{found[1]}.{found[2] or found[3]}", text)
    parts = [_INTERVAL.fullmatch(part) for part in _UNION.split(_MEMBER.sub("", text, count=1))]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or not any(_foreign(part) for part in found):
        return text
    return r" \cup ".join(map(_interval, found))


def decimal_beside(text: str, other: str) -> str:
    """A number with a comma as a decimal, where the other answer is one with a point or a fraction; else as it is."""
    found = _WITH_COMMA.fullmatch(text)
    if found is None or not _ONE_VALUE.fullmatch(other) or (len(found[2]) == 3 and found[1].lstrip("+-") != "0"):
        return text
    return f"{found[1]}.{found[2]}{found[3] or ''}"


def _foreign(found: re.Match[str]) -> bool:
    return found["between"] == ";" or _opens(found) == "(" != found["open"] or _closes(found) == ")" != found["close"]


def _interval(found: re.Match[str]) -> str:
    bounds = (found["from"], found["to"])
    if found["between"] == ";":
        bounds = (_COMMA.sub(r"\1.\2", bounds[0]), _COMMA.sub(r"\1.\2", bounds[1]))
    return f"{_opens(found)}{bounds[0]}, {bounds[1]}{_closes(found)}"


def _opens(found: re.Match[str]) -> str:
    return {"[": "[", r"\lbrack": "["}.get(found["open"], "(")


def _closes(found: re.Match[str]) -> str:
    return {"]": "]", r"\rbrack": "]"}.get(found["close"], ")")
