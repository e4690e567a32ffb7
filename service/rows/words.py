"""Full text search over a run's prompts, reasoning and answers, in the index that `layout.py --words` writes.

What a person types is never taken for SQLite's query language: every word is quoted. Words are found whole and in any
letters, accents aside; `word*` finds beginnings, and "several words" stand side by side.
"""

import re
import sqlite3
from typing import Any

import numpy as np

from pipelines.errors import UserError, unknown
from service.rows.columns import Numbers

PARTS = ("prompt", "reasoning", "answer")
LONGEST = 300
# Every further word of a search is one more list of rows to walk.
_MOST_WORDS = 12
_PIECES = re.compile(r'"([^"]*)"?|(\S+)')


def query_of(text: str, within: str = "") -> str:
    """A search as FTS5 takes it; "" for an empty one.

    >>> query_of('refus* "step by step" AND "', "answer")
    '{answer} : ("refus" * "step by step" "AND")'

    Raises:
        UserError: no word, too many, or no such part of a row.
    """
    if within and within not in PARTS:
        raise unknown("part of a row to search", within[:200], PARTS)
    pieces = []
    for phrase, word in _PIECES.findall(text[:LONGEST].replace("\0", " ")):
        found = (phrase or word.rstrip("*")).replace('"', '""')
        # Signs alone are no word to SQLite, and would fit nothing.
        if any(sign.isalnum() for sign in found):
            pieces.append(f'"{found}"' + (" *" if word.endswith("*") else ""))
    if text.strip() and not pieces:
        raise UserError(f"A search takes words, and '{text[:80]}' has none.")
    if sum(len(piece.split()) for piece in pieces) > _MOST_WORDS:
        raise UserError(f"A search takes {_MOST_WORDS} words at most.")
    joined = " ".join(pieces).encode("utf-8", "replace").decode()
    return f"{{{within}}} : ({joined})" if within and joined else joined


def hits(db: sqlite3.Connection, query: str) -> Numbers:
    """The numbers of the rows that a query of `query_of` finds, in one string: a million one by one take longer."""
    found: tuple[Any] = db.execute("SELECT group_concat(rowid) FROM words WHERE words MATCH ?", [query]).fetchone()
    return np.fromstring(found[0] or "", dtype=np.uint32, sep=",")
