"""A run's rows: searched, filtered, sorted, counted, by page, and every response to one prompt.

Reads what `layout.py` makes of the run's tables under runs/.serve/rows, anew when one of them has changed. Which rows a
question is about is decided by `columns.py` and `words.py`; a `Listing` is the answer, by number, in order.
"""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UserError
from pipelines.records import PATTERNS
from service.http.problems import Problem
from service.rows.columns import Columns, Filter, Kept, Mask, Numbers, check_sort, filter_of
from service.rows.words import hits, query_of

__all__ = ["Page", "Query", "RowIndex", "filter_of", "query_from"]

_PROMPT = "(SELECT text FROM prompts WHERE prompt_id = ?)"
_WHOLE = f"SELECT {_PROMPT} AS prompt, reasoning, answer FROM texts WHERE rowid = ?"  # noqa: S608 - words of ours
_BEGINNINGS = (
    f"SELECT substr({_PROMPT}, 1, 240) AS prompt_begins, substr(answer, 1, 240) AS answer_begins "  # noqa: S608
    "FROM texts WHERE rowid = ?"
)
# Until a search is told that its words are not indexed yet.
_WAIT_S = 3.0
_CACHE_KB = 400
# Row numbers that are kept of answers, four bytes each, rows of masks, a byte each, and counts.
_MOST_KEPT, _MOST_COUNTS = 5_000_000, 200
# Columns whose values are offered as filters, and how many of each.
_CHIPS = {"config": 12, "outcome": 3, "kind": 2, "safety": 3, "category": 8}
_FLAGS = (*PATTERNS, "overthinking", "refused")


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows, in which order: filters that all fit, words that are found `within` a part of the row or anywhere."""

    filters: tuple[Filter, ...] = ()
    words: str = ""
    within: str = ""
    sort: str = ""


def query_from(where: Collection[str] = (), words: str = "", within: str = "", sort: str = "") -> Query:
    """A query of texts that came from outside.

    Raises:
        UserError: a filter, a search or an order that is none.
    """
    query_of(words, within)
    return Query(tuple(dict.fromkeys(filter_of(one) for one in where)), words.strip(), within, check_sort(sort))


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the rows of a query, and how many there are in all."""

    total: int
    rows: list[dict[str, Any]]


class RowIndex:
    """The rows of one run as they were when its tables had one state."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.mark, self.columns = columns.mark, columns
        self._path = path
        self._local = threading.local()
        self._listings: Kept[Query, Numbers] = Kept(_MOST_KEPT, len)
        self._counts: Kept[Query, dict[str, list[tuple[Filter, int]]]] = Kept(_MOST_COUNTS, lambda _: 1)
        self._masks: Kept[Query, Mask] = Kept(_MOST_KEPT, len)
        self._words_there = threading.Event()
        self._no_words = ""

    @property
    def judged(self) -> bool:
        """Whether any row has a verdict, and so can be worse than another."""
        return self.columns.judged

    def set_words(self, problem: str = "") -> None:
        """Note that the words can be searched now, or why they cannot."""
        self._no_words = problem
        self._words_there.set()

    def searchable(self, wait_s: float = 0.0) -> bool:
        """Whether words can be searched, after at most so many seconds."""
        return self._words_there.wait(wait_s)

    def _db(self, ending: str = "sqlite") -> sqlite3.Connection:
        """This thread's connection. Read only, and of the file as it was opened, even where that is replaced."""
        db: sqlite3.Connection | None = getattr(self._local, ending, None)
        if db is None:
            db = self._opened(ending)
            setattr(self._local, ending, db)
        return db

    def _opened(self, ending: str) -> sqlite3.Connection:
        """A connection of its own, which any thread may use.

        Raises:
            Problem: 409, the file was replaced by that of newer tables.
        """
        uri = self._path.with_name(self._path.name.removesuffix("sqlite") + ending).absolute().as_uri()
        db = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        if db.execute("SELECT mark FROM made").fetchone()[0] != self.mark:
            db.close()
            raise Problem(409, "The rows have changed meanwhile. Ask again.")
        return db

    def page(self, query: Query, offset: int, limit: int, texts: bool) -> Page:
        """Rows `offset` to `offset + limit` of a query, with their whole texts on request.

        Raises:
            Problem: 409, the words are not indexed yet.
        """
        found = self.listing(query)
        return Page(len(found), self.rows(found[offset : offset + limit], texts))

    def listing(self, query: Query) -> Numbers:
        """The numbers of all rows of a query in their order, kept for the pages that follow.

        Raises:
            Problem: 409, the words are not indexed yet.
        """
        return self._listings.get(query, lambda: self.columns.ordered(self._mask(query), query.sort))

    def _mask(self, query: Query) -> Mask:
        return self._masks.get(replace(query, sort=""), lambda: self._found(query))

    def _found(self, query: Query) -> Mask:
        mask = self.columns.fitting(query.filters)
        if words := query_of(query.words, query.within):
            if not self.searchable(_WAIT_S):
                raise Problem(409, "The words of this run are being indexed. Ask again soon.", {"retry-after": "2"})
            if self._no_words:
                raise UserError(self._no_words)
            found = np.zeros(len(mask) + 1, dtype=bool)
            found[hits(self._db("words.sqlite"), words)] = True
            mask &= found[1:]
        return mask

    def counts(self, query: Query) -> dict[str, list[tuple[Filter, int]]]:
        """By column, what a further filter would leave of a query, for the values of a few columns and for each flag.

        A filter on a column's value is left out of that column's own counts: another value would replace it.
        """
        return self._counts.get(replace(query, sort=""), lambda: self._counted(query))

    def _counted(self, key: Query) -> dict[str, list[tuple[Filter, int]]]:
        found: dict[str, list[tuple[Filter, int]]] = {}
        whole = self._mask(key)
        for name, most in _CHIPS.items():
            others = tuple(one for one in key.filters if (one.column, one.operator) != (name, "eq"))
            mask = whole if others == key.filters else self._mask(replace(key, filters=others))
            found[name] = [(Filter(name, "eq", value), n) for value, n in self.columns.counts(name, mask, most)]
        flags = [
            Filter("patterns", "ge", 1),
            *(Filter(name, "eq", True) for name in _FLAGS),
            Filter("attempt", "ge", 1),
        ]
        found["flags"] = [(one, self.columns.count(one, whole)) for one in flags]
        return found

    def around(self, query: Query, response_id: str) -> tuple[int, int, str, str] | None:
        """A row's place in a query from 0, how many rows that has, and the responses before and after it ("" for none).

        None where the query does not have the row.
        """
        listing = self.listing(query)
        at = np.flatnonzero(listing == self._number(response_id))
        if not len(at):
            return None
        place = int(at[0])
        ids = [
            self.columns.rows([int(listing[near])])[0]["response_id"] if 0 <= near < len(listing) else ""
            for near in (place - 1, place + 1)
        ]
        return place, len(listing), ids[0], ids[1]

    def _number(self, response_id: str) -> int:
        try:
            found = self._db().execute("SELECT rowid FROM rows WHERE response_id = ?", [response_id]).fetchone()
        except UnicodeEncodeError:  # half of a surrogate pair
            return 0
        return 0 if found is None else int(found[0])

    def numbers_of(self, response_ids: Sequence[str]) -> Numbers:
        """The numbers of these responses, in this order, without those that are not of this run."""
        found = (self._number(one) for one in response_ids)
        return np.array([number for number in found if number], dtype=np.uint32)

    def response(self, response_id: str) -> dict[str, Any] | None:
        """One response with its texts; None where the run has none of this id."""
        return next(iter(self.rows(self.numbers_of([response_id]), texts=True)), None)

    def of_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """Every response to a prompt with its texts, by variant, sample and attempt."""
        found = self._db().execute("SELECT rowid FROM rows WHERE prompt_id = ? ORDER BY rowid", [prompt_id])
        rows = self.rows([row[0] for row in found], texts=True)
        return sorted(rows, key=lambda row: (row["config"], row["sample"], row["attempt"]))

    def judgements(self, response_id: str) -> list[dict[str, Any]]:
        """Every judge's verdict on a response; `evidence` maps a label to the words that were quoted for it."""
        found = self._db().execute("SELECT * FROM said WHERE response_id = ? ORDER BY judge", [response_id])
        return [{**dict(row), "evidence": json.loads(row["evidence"] or "{}")} for row in found]

    def rows(
        self, numbers: Sequence[int] | Numbers, texts: bool, db: sqlite3.Connection | None = None
    ) -> list[dict[str, Any]]:
        """Rows by their numbers, with their whole texts or how they begin."""
        query = _WHOLE if texts else _BEGINNINGS
        db = db or self._db()
        return [
            row | dict(db.execute(query, [row["prompt_id"], int(number)]).fetchone())
            for number, row in zip(numbers, self.columns.rows([int(one) for one in numbers]), strict=True)
        ]

    def batches(self, numbers: Numbers, size: int) -> Iterator[list[dict[str, Any]]]:
        """Rows by their numbers with their texts, so many at a time, of the file as it is at the call."""
        db = self._opened("sqlite")

        def each() -> Iterator[list[dict[str, Any]]]:
            with closing(db):
                for begin in range(0, len(numbers), size):
                    yield self.rows(numbers[begin : begin + size], True, db)

        return each()
