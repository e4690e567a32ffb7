"""Markdown of cards: templates filled with texts of others, which stay text."""

import re
from pathlib import Path
from typing import Any

import jinja2

from pipelines.errors import visible, visible_value

TEMPLATES = Path(__file__).parents[1]


def cell(value: Any) -> str:
    """A value as one line of markdown text, fit for a cell of a table: nothing in it is markup, nor becomes a link."""
    text = " ".join(visible(str(value)).split())
    text = re.sub(r"([\\`*_\[\]|!~$#@])", r"\\\1", text).translate(_ENTITIES)
    return re.sub(r"(?i)\b(https?|ftp|mailto|www)(?=[:.])", _unlinked, text)


def fence(text: str) -> str:
    """The backticks around a block of code that holds this text: one more than it holds in a row, at least three."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def template(name: str) -> jinja2.Template:
    """A template by its path in cards/, with the filters `cell` and `fence`; a name that nothing fills is an error."""
    return _ENVIRONMENT.get_template(name)


def _unlinked(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}&#{ord(found[0][-1])};"


# Braces as well: what is left over from a template is looked for in a card.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "{": "&#123;", "}": "&#125;"})
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # the output is markdown; what comes from others goes through `cell`
    finalize=visible_value,
)
_ENVIRONMENT.filters |= {"cell": cell, "fence": fence}
