"""A run's rows by page, filtered by column, and every response to one prompt.

Reads runs/.serve/rows/RUN.sqlite, which `layout.py` makes of the run's tables, anew when one of them has changed.
Filters are `column:op:value`. Columns and operators come from lists, values are
always bound.
"""

import json
import sqlite3
import subprocess
import sys
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.runs import RunFolder
from pipelines.settings.old_names import current_name
from service.layout import COLUMNS, mark_of, path_of

OPERATORS = {
    "eq": "{column} = ?",
    "ne": "{column} <> ?",
    "lt": "{column} < ?",
    "le": "{column} <= ?",
    "gt": "{column} > ?",
    "ge": "{column} >= ?",
    "contains": "instr(lower({column}), lower(?)) > 0",
    "null": "({column} IS NULL) = ?",
}
_PROMPT = "(SELECT text FROM prompts WHERE prompt_id = ?)"
_WHOLE = f"SELECT {_PROMPT} AS prompt, reasoning, answer FROM texts WHERE rowid = ?"  # noqa: S608 - words of ours
_BEGINNINGS = (
    f"SELECT substr({_PROMPT}, 1, 240) AS prompt_begins, substr(answer, 1, 240) AS answer_begins "  # noqa: S608
    "FROM texts WHERE rowid = ?"
)
_TRUTH = {"true": True, "false": False}
_CACHE_KB = 16_000
# Row numbers that are kept of filters' results, four bytes each.
_MOST_KEPT = 5_000_000
_LONGEST_S = 1800


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one column."""

    column: str
    operator: str
    value: str | int | float | bool

    @property
    def sql(self) -> str:
        """The condition with a mark where the value is bound."""
        return OPERATORS[self.operator].format(column=self.column)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows that fit, mild ones first, then in the order of ids, and how many there are in all."""

    total: int
    rows: list[dict[str, Any]]


def filter_of(text: str) -> Filter:
    """`column:op:value` taken apart; the value may hold further colons.

    Raises:
        UserError: an unknown column or operator, or a value of another kind than the column's.
    """
    column, _, rest = text.partition(":")
    operator, colon, value = rest.partition(":")
    if not colon:
        raise UserError(f"where takes column:op:value, such as variant:eq:improved; it got '{text[:200]}'.")
    if column not in COLUMNS:
        raise unknown("column", column[:200], COLUMNS)
    if operator not in OPERATORS:
        raise unknown("operator", operator[:200], OPERATORS)
    kind = bool if operator == "null" else str if operator == "contains" else COLUMNS[column]
    if column in ("variant", "config"):
        value = current_name(value)
    return Filter(column, operator, _value(column, kind, value))


def _value(column: str, kind: type, text: str) -> str | int | float | bool:
    try:
        if kind is bool:
            return _TRUTH[text.lower()]
        if kind is str:
            text.encode("utf-8")  # half of a surrogate pair cannot be bound
            return text
        number = kind(text)
        if not abs(number) < 2**63:
            raise ValueError(text)
    except (ValueError, KeyError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise UserError(f"where: {column} is compared with {words[kind]}, not with '{text[:200]}'.") from error
    return int(number) if kind is int else float(number)


class RowIndex:
    """The rows of one run as they were when its tables had one state."""

    def __init__(self, path: Path, mark: str) -> None:
        self.mark = mark
        self._path = path
        self._local = threading.local()
        self._guard = threading.Lock()
        self._kept: OrderedDict[tuple[Filter, ...], array[int]] = OrderedDict()

    def _db(self) -> sqlite3.Connection:
        """This thread's connection. Read only, and of the file as it was opened, even where that is replaced."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            db.row_factory = sqlite3.Row
            db.execute(f"PRAGMA cache_size = -{_CACHE_KB // 8}")
            self._local.db = db
        return db

    def page(self, filters: Sequence[Filter], offset: int, limit: int, texts: bool) -> Page:
        """Rows `offset` to `offset + limit` of those that fit all filters, with their whole texts on request."""
        if filters:
            fit = self._fitting(tuple(filters))
            total, numbers = len(fit), list(fit[offset : offset + limit])
        else:
            # Rows are numbered from 1 without a gap.
            (total,) = self._db().execute("SELECT coalesce(max(rowid), 0) FROM rows").fetchone()
            numbers = list(range(offset + 1, min(offset + limit, total) + 1))
        marks = ", ".join("?" * len(numbers))
        found = self._db().execute(
            f"SELECT rowid, * FROM rows WHERE rowid IN ({marks}) ORDER BY rowid",  # noqa: S608
            numbers,
        )
        return Page(int(total), [self._row(row, texts) for row in found.fetchall()])

    def _fitting(self, filters: tuple[Filter, ...]) -> "array[int]":
        """The numbers of all rows that fit, kept for the pages that follow."""
        with self._guard:
            fit = self._kept.get(filters)
            if fit is not None:
                self._kept.move_to_end(filters)
                return fit
        where = " AND ".join(item.sql for item in filters)
        query = f"SELECT rowid FROM rows WHERE {where} ORDER BY rowid"  # noqa: S608 - values are bound
        found = self._db().execute(query, [item.value for item in filters])
        fit = array("I", (row[0] for row in found))
        with self._guard:
            self._kept[filters] = fit
            while sum(map(len, self._kept.values())) > _MOST_KEPT and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return fit

    def of_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """Every response to a prompt with its texts, by variant, sample and attempt."""
        found = self._db().execute(
            "SELECT rowid, * FROM rows WHERE prompt_id = ? ORDER BY config, sample, attempt, rowid", [prompt_id]
        )
        return [self._row(row, texts=True) for row in found.fetchall()]

    def judgements(self, response_id: str) -> list[dict[str, Any]]:
        """Every judge's verdict on a response; `evidence` maps a label to the words that were quoted for it."""
        found = self._db().execute("SELECT * FROM said WHERE response_id = ? ORDER BY judge", [response_id])
        return [{**dict(row), "evidence": json.loads(row["evidence"] or "{}")} for row in found]

    def choices(self, column: str) -> list[str]:
        """The values that a column of few values has."""
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS)
        found = self._db().execute("SELECT value FROM choices WHERE name = ? ORDER BY value", [column])
        return [str(row[0]) for row in found]

    def _row(self, found: sqlite3.Row, texts: bool) -> dict[str, Any]:
        row = {name: found[name] for name in COLUMNS}
        for name, kind in COLUMNS.items():
            if kind is bool and row[name] is not None:
                row[name] = bool(row[name])
        text_columns = self._db().execute(_WHOLE if texts else _BEGINNINGS, [found["prompt_id"], found["rowid"]])
        return row | dict(text_columns.fetchone())


class RowIndexes:
    """The indexes of all runs, made when they are first asked for."""

    def __init__(self) -> None:
        self._there: dict[str, RowIndex] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def of(self, run: RunFolder) -> RowIndex:
        """The index of a run as it is now.

        Raises:
            UserError: the run has no responses yet, or a table of it is broken.
        """
        run.require("responses")
        mark = mark_of(run)
        found = self._there.get(run.name)
        if found is not None and found.mark == mark:
            return found
        with self._guard:
            lock = self._locks.setdefault(run.name, threading.Lock())
        with lock:
            found = self._there.get(run.name)
            if found is None or found.mark != mark:
                path = path_of(run.path.parent, run.name)
                if _mark_in(path) != mark:
                    _lay_out(run)
                found = self._there[run.name] = RowIndex(path, mark)
            return found


def _mark_in(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return str(db.execute("SELECT mark FROM made").fetchone()[0])
    except sqlite3.Error:
        return None


def _lay_out(run: RunFolder) -> None:
    command = [sys.executable, "-m", "service.layout", str(run.path.parent), run.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(last) if done.returncode == 2 else RuntimeError(f"The rows cannot be laid out: {last}")
