"""Rows about a picture, a sound or a film, which a table of text cannot hold: its answer would answer nothing.

Reads a row and its question; writes nothing. `reading.py` refuses such a row with the reason.
"""

import re
from collections.abc import Mapping
from typing import Any

_COLUMNS = frozenset(f"{kind}{end}" for kind in ("image", "video", "audio") for end in ("", "s", "_path", "_url"))
# A model's own token counts anywhere. A name in brackets, which HTML has as well, counts on a line of its own, or at
# the beginning: right before a word, or where HTML has no such element.
_TOKEN = re.compile(
    r"<\|(?:image|img|video|audio|vision)(?:_[A-Za-z_]+)?\|>|<(?:start_of_image|image_soft_token)>|\[IMG\]"
)
_NAME = r"<(?:image|img|video|audio|picture|speech|sound)s?(?:_?\d+)?>"
_ALONE = re.compile(rf"^[ \t]*(?:{_NAME}[ \t]*)+$", re.MULTILINE | re.IGNORECASE)
_AHEAD = re.compile(
    rf"\s*(?:(?:{_NAME}\s*)*{_NAME}(?=[^\s<])|<images?(?:_?\d+)?>(?!\s*(?:tag|element|attribute)))", re.IGNORECASE
)


def media_of(row: Mapping[str, Any], question: str) -> str:
    """Why a row cannot be used, "" where nothing speaks against it."""
    for name, value in row.items():
        if name.lower() in _COLUMNS and _holds(value):
            return f"it has '{name}', and a row holds text only"
    found = _TOKEN.search(question) or _ALONE.search(question) or _AHEAD.match(question)
    if found is None:
        return ""
    mark = re.sub(r"^\s*(<[^>]*>).*", r"\1", found[0], flags=re.DOTALL)
    # Code that opens an element closes it.
    return "" if f"</{mark[1:]}" in question else f"the question holds {mark}, a placeholder, and a row holds text only"


def _holds(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(part) for part in value.values())
    if isinstance(value, list):
        return any(_holds(part) for part in value)
    return value is not None and value == value and value is not False and str(value).strip() != ""
