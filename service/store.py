"""The service's own SQLite file: tokens, sessions, the queue and the teachers' last tests.

runs/.serve/            (mode 0700)
  service.sqlite        what is here
  lock                  held by the one service that works on these runs
  rows/RUN.*            the rows of a run, laid out for paging (`rows/layout.py`); made anew whenever they are missing
  lists/RUN-HASH.txt    ids of rows that a job was asked to take
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.files import write_text
from pipelines.records import content_id
from pipelines.teachers.ledger_file import transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS tokens(
  name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, created REAL NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions(
  hash TEXT PRIMARY KEY, token TEXT, role TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs(
  id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, action TEXT NOT NULL, arguments TEXT NOT NULL,
  asked_by TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
  process INTEGER, process_started REAL, attempts INTEGER NOT NULL DEFAULT 0, exit_code INTEGER,
  message TEXT NOT NULL DEFAULT '', fault TEXT NOT NULL DEFAULT ''
);
-- At most one job of a run is waiting or under way.
CREATE UNIQUE INDEX IF NOT EXISTS open_job ON jobs(run) WHERE state IN ('queued', 'running', 'cancelling');
CREATE INDEX IF NOT EXISTS jobs_of_run ON jobs(run, id);
CREATE TABLE IF NOT EXISTS tests(
  teacher TEXT PRIMARY KEY, at REAL NOT NULL, answers INTEGER NOT NULL, message TEXT NOT NULL
) WITHOUT ROWID;
"""


def home_of(runs: Path) -> Path:
    """The service's folder beside the runs that it serves, which only its owner can read."""
    home = runs / ".serve"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    return home


class Store:
    """One process's connection to the service's file; any of its threads may use it."""

    def __init__(self, runs: Path) -> None:
        self._lock = threading.RLock()
        self._home = home_of(runs)
        path = self._home / "service.sqlite"
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        with self._lock:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
            # A file of an earlier version lacks the column, or has it under another name.
            if "fault" not in {row["name"] for row in self._db.execute("PRAGMA table_info(jobs)")}:
                self._db.execute("ALTER TABLE jobs ADD COLUMN fault TEXT NOT NULL DEFAULT ''")
            if "told" in {row["name"] for row in self._db.execute("PRAGMA table_info(tests)")}:
                self._db.execute("ALTER TABLE tests RENAME COLUMN told TO message")

    def all(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Every row of a query."""
        with self._lock:
            return [dict(row) for row in self._db.execute(query, values)]

    def one(self, query: str, *values: Any) -> dict[str, Any] | None:
        """The first row of a query, None where there is none."""
        with self._lock:
            row = self._db.execute(query, values).fetchone()
        return None if row is None else dict(row)

    def change(self, query: str, *values: Any) -> int:
        """Change rows; how many were."""
        with self._lock:
            return self._db.execute(query, values).rowcount

    def keep_list(self, run: str, ids: Sequence[str]) -> Path:
        """A file with these ids, one a line, for a job; the same ids have the same file."""
        path = (self._home / "lists" / f"{run}-{content_id(*ids)}.txt").absolute()
        write_text(path, "\n".join(ids) + "\n")
        return path

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A transaction: all of the block's changes or none, and no others in between."""
        with self._lock, transaction(self._db):
            yield

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()
