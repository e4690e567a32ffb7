"""A run's rows for paging and filtering: read once by DuckDB, laid out in SQLite, looked up from there.

Reads the run's tables through `curation/views.py`; writes runs/.serve/rows/RUN.sqlite, whole or not at all, and anew
when a table has changed. Looking 50 scattered rows of 100,000 up in parquet takes a quarter of a second, whatever reads
it, since texts are compressed by the thousand; in SQLite it takes a millisecond.

Filters are `column:op:value`. Columns and operators come from the lists below, values are always bound.
"""

import json
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.views import open_views
from pipelines.errors import UserError, unknown
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, atomic
from service.serve.store import home_of

_QUERY = Path(__file__).with_name("rows.sql")
TEXTS = ("prompt", "reasoning", "answer")
_BEGINNINGS = ("prompt_begins", "answer_begins")
# What is kept of each judgement.
SAID = ("response_id", "judge", "kind", "compliance", "safety", "refused", "evidence", "analysis", "reason")
# What a filter may name, and how its value is read.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(
        ("response_id", "prompt_id", "config", "kind", "category", "template_id", "behaviour_id", "variant"), str
    ),
    **dict.fromkeys(("teacher", "model"), str),
    **dict.fromkeys(("sample", "attempt"), int),
    **dict.fromkeys(("parent_id", "finish_reason", "reasoning_source"), str),
    **dict.fromkeys(("input_tokens", "output_tokens"), int),
    **dict.fromkeys(("cost", "latency_s"), float),
    **dict.fromkeys(("lack_of_safety_awareness", "overthinking", *PATTERNS[1:]), bool),
    "refused": bool,
    **dict.fromkeys(("compliance", "safety"), str),
    "disagreement": float,
    "patterns": int,
    **dict.fromkeys(("outcome", "reasons"), str),
}
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
_TRUTH = {"true": True, "false": False}
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER"}
# What the views read.
_TABLES = ("prompts", "responses", "judgements", "verdicts", "decisions", "accepted", "rejected")
_BATCH = 1000
# DuckDB's share of memory while it reads, and SQLite's while it is asked.
_MEMORY = "256MB"
_CACHE_KB = 16_000
_KEPT_TOTALS = 1000
# Raised when the tables below change, so that no file of an older layout is read.
_LAYOUT = 1


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
    """Rows that fit, in the order of ids, and how many there are in all."""

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
        self._totals: dict[tuple[Filter, ...], int] = {}

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
        where = " AND ".join(["true", *(item.sql for item in filters)])
        values = [item.value for item in filters]
        total = self._total(tuple(filters), where, values)
        if not filters:
            # Numbers of rows are 1 to the last without a gap: no need to count up to the page.
            where, values, offset = "rowid > ?", [offset], 0
        found = self._db().execute(
            f"SELECT rowid, * FROM rows WHERE {where} ORDER BY rowid LIMIT ? OFFSET ?",  # noqa: S608
            [*values, limit, offset],
        )
        return Page(total, [self._row(row, texts) for row in found.fetchall()])

    def _total(self, filters: tuple[Filter, ...], where: str, values: list[Any]) -> int:
        if filters not in self._totals:
            if len(self._totals) >= _KEPT_TOTALS:
                self._totals.clear()
            (total,) = self._db().execute(f"SELECT count(*) FROM rows WHERE {where}", values).fetchone()  # noqa: S608
            self._totals[filters] = int(total)
        return self._totals[filters]

    def of_prompt(self, prompt_id: str) -> list[dict[str, Any]]:
        """Every response to a prompt with its texts, by variant, sample and attempt."""
        found = self._db().execute(
            "SELECT rowid, * FROM rows WHERE prompt_id = ? ORDER BY config, sample, attempt, rowid", [prompt_id]
        )
        return [self._row(row, texts=True) for row in found.fetchall()]

    def judgements(self, response_id: str) -> list[dict[str, Any]]:
        """What each judge said of a response; `evidence` maps a label to the words that were quoted for it."""
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
        columns = ", ".join(TEXTS if texts else _BEGINNINGS)
        said = self._db().execute(f"SELECT {columns} FROM texts WHERE rowid = ?", [found["rowid"]])  # noqa: S608
        return row | dict(said.fetchone())


class RowIndexes:
    """The indexes of all runs, made when they are first asked for."""

    def __init__(self, runs: Path) -> None:
        self._folder = home_of(runs) / "rows"
        self._folder.mkdir(exist_ok=True)
        self._there: dict[str, RowIndex] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def of(self, run: RunFolder) -> RowIndex:
        """The index of a run as it is now.

        Raises:
            UserError: the run has no responses yet, or a table of it is broken.
        """
        run.require("responses")
        mark = _mark(run)
        found = self._there.get(run.name)
        if found is not None and found.mark == mark:
            return found
        with self._guard:
            lock = self._locks.setdefault(run.name, threading.Lock())
        with lock:
            found = self._there.get(run.name)
            if found is None or found.mark != mark:
                path = self._folder / f"{run.name}.sqlite"
                if _mark_in(path) != mark:
                    _lay_out(run, path, mark)
                found = self._there[run.name] = RowIndex(path, mark)
            return found


def _mark(run: RunFolder) -> str:
    """What changes when one of the tables does."""
    marks = []
    for name in _TABLES:
        path = run.table_path(name)
        found = path.stat() if path.exists() else None
        marks.append(None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino))
    return json.dumps([_LAYOUT, _QUERY.read_text(encoding="utf-8"), marks])


def _mark_in(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return str(db.execute("SELECT mark FROM made").fetchone()[0])
    except sqlite3.Error:
        return None


def _lay_out(run: RunFolder, path: Path, mark: str) -> None:
    columns = ", ".join(f"{name} {_SQL_TYPES[kind]}" for name, kind in COLUMNS.items())
    with atomic(path) as temporary, closing(sqlite3.connect(temporary, isolation_level=None)) as db:
        # Nobody else reads it before it is whole, and it can always be made again.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"CREATE TABLE rows({columns})")
        # Texts apart, so that a filter reads past none.
        db.execute(f"CREATE TABLE texts({', '.join((*_BEGINNINGS, *TEXTS))})")
        db.execute(f"CREATE TABLE said({', '.join(SAID)})")
        db.execute("BEGIN")
        scratch = home_of(run.path.parent) / "scratch"
        with open_views(run, "prompts", "responses", memory=_MEMORY, scratch=scratch) as views:
            for batch in views.sql(f"{_QUERY.read_text(encoding='utf-8')} ORDER BY response_id").to_arrow_reader(
                _BATCH
            ):
                _put(db, "rows", batch, list(COLUMNS))
                _put(db, "texts", batch, [*_BEGINNINGS, *TEXTS])
            for batch in views.sql(f"SELECT {', '.join(SAID)} FROM judgements").to_arrow_reader(_BATCH):  # noqa: S608
                _put(db, "said", batch, list(SAID))
        db.execute("COMMIT")
        db.execute("CREATE INDEX said_of ON said(response_id)")
        db.execute("CREATE INDEX by_prompt ON rows(prompt_id)")
        db.execute("CREATE TABLE choices(name TEXT, value TEXT)")
        for name in ("config", "kind", "category"):
            db.execute(f"INSERT INTO choices SELECT DISTINCT '{name}', {name} FROM rows")  # noqa: S608 - names of ours
        db.execute("CREATE TABLE made(mark TEXT)")
        db.execute("INSERT INTO made VALUES (?)", [mark])


def _put(db: sqlite3.Connection, table: str, batch: pa.RecordBatch, names: list[str]) -> None:
    marks = ", ".join("?" * len(names))
    values = [batch.column(name).to_pylist() for name in names]
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", zip(*values, strict=True))  # noqa: S608 - names of ours
