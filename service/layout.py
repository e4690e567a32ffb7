"""A run's rows laid out in SQLite for paging: read once by DuckDB, texts apart from what rows are filtered by.

Reads the run's tables through `curation/sql/views.py` and rows.sql; writes runs/.serve/rows/RUN.sqlite, whole or not at
all. The service runs `python -m service.layout RUNS RUN`, in a process of its own: it takes memory that would not
be given back, and time in which nobody else would be served. Looking 50 scattered rows of 100,000 up in parquet takes a
quarter of a second, whatever reads it, since texts are compressed by the thousand; in SQLite it takes milliseconds.
"""

import json
import sqlite3
import sys
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from pipelines.errors import refusal_of
from pipelines.prompts.mildness import severity_sql
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, atomic
from service.store import home_of

_QUERY = Path(__file__).with_name("rows.sql")
# What is kept of each judgement.
JUDGED = ("response_id", "judge", "kind", "compliance", "safety", "refused", "evidence", "analysis", "reason")
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
_SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER"}
# What the views read.
_TABLES = ("prompts", "responses", "judgements", "verdicts", "decisions", "accepted", "rejected")
# Mild rows are what a page shows first.
_ORDER = f"{severity_sql('category', 'kind')}, response_id"
_BATCH = 500
# Most memory that DuckDB takes.
_MEMORY = "512MB"
# Raised when the tables below change, so that no file of an older layout is read.
_LAYOUT = 3


def path_of(runs: Path, name: str) -> Path:
    """Where the rows of a run are laid out."""
    return home_of(runs) / "rows" / f"{name}.sqlite"


def mark_of(run: RunFolder) -> str:
    """What changes when one of the tables does, or how they are laid out."""
    marks = []
    for name in _TABLES:
        path = run.table_path(name)
        found = path.stat() if path.exists() else None
        marks.append(None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino))
    return json.dumps([_LAYOUT, _QUERY.read_text(encoding="utf-8"), marks])


def lay_out(run: RunFolder, path: Path) -> None:
    """Write the file.

    Raises:
        UserError: the run has no responses yet, or a table of it is broken.
    """
    from curation.sql.views import open_views

    mark = mark_of(run)
    columns = ", ".join(f"{name} {_SQL_TYPES[kind]}" for name, kind in COLUMNS.items())
    with atomic(path) as temporary, closing(sqlite3.connect(temporary, isolation_level=None)) as db:
        # Nobody else reads it before it is whole, and it can always be made again.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"CREATE TABLE rows({columns})")
        # Texts apart, so that a filter reads past none; answers before reasoning, which may be long.
        db.execute("CREATE TABLE texts(answer TEXT, reasoning TEXT)")
        db.execute("CREATE TABLE prompts(prompt_id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        db.execute(f"CREATE TABLE said({', '.join(JUDGED)})")
        db.execute("BEGIN")
        scratch = home_of(run.path.parent) / "scratch"
        with open_views(run, "prompts", "responses", memory=_MEMORY, scratch=scratch) as views:
            rows = views.sql(_QUERY.read_text(encoding="utf-8")).order(_ORDER)
            for batch in rows.to_arrow_reader(_BATCH):
                _put(db, f"rows VALUES ({_marks(COLUMNS)})", batch, COLUMNS)
        db.execute("CREATE UNIQUE INDEX by_id ON rows(response_id)")
        # Each text under the number of its row.
        place = "(SELECT rowid FROM rows WHERE response_id = ?)"
        texts = f"texts(rowid, answer, reasoning) VALUES ({place}, ?, ?)"
        _put_all(db, texts, run, "responses", ("response_id", "answer", "reasoning"))
        _put_all(db, "prompts VALUES (?, ?)", run, "prompts", ("prompt_id", "text"))
        if run.table_path("judgements").exists():
            _put_all(db, f"said VALUES ({_marks(JUDGED)})", run, "judgements", JUDGED)
        db.execute("COMMIT")
        db.execute("CREATE INDEX said_of ON said(response_id)")
        db.execute("CREATE INDEX by_prompt ON rows(prompt_id)")
        db.execute("CREATE TABLE choices(name TEXT, value TEXT)")
        for name in ("config", "kind", "category"):
            db.execute(f"INSERT INTO choices SELECT DISTINCT '{name}', {name} FROM rows")  # noqa: S608 - names of ours
        db.execute("CREATE TABLE made(mark TEXT)")
        db.execute("INSERT INTO made VALUES (?)", [mark])


def _marks(names: Collection[str]) -> str:
    return ", ".join("?" * len(names))


def _put_all(db: sqlite3.Connection, into: str, run: RunFolder, table: str, names: Collection[str]) -> None:
    with run.opened(table) as file:
        for batch in file.iter_batches(_BATCH, columns=list(names)):
            _put(db, into, batch, names)


def _put(db: sqlite3.Connection, into: str, batch: pa.RecordBatch, names: Iterable[str]) -> None:
    values = [batch.column(name).to_pylist() for name in names]
    db.executemany(f"INSERT INTO {into}", zip(*values, strict=True))


def main() -> None:
    """Lay out the rows of one run: exit code 2 and one line where a table cannot be read."""
    runs, name = Path(sys.argv[1]), sys.argv[2]
    try:
        lay_out(RunFolder.open(runs, name), path_of(runs, name))
    except Exception as error:
        message = refusal_of(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
