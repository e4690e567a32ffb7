"""A table before it has a look, as the terminal, a markdown file and a page show it. Reads and writes nothing."""

from typing import NamedTuple


class Cells(NamedTuple):
    """A title, a head and rows of as many words, and the notes below."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
