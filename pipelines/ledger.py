"""The request ledger: every answered request of a run, so that nothing is lost and nothing is paid twice.

    ledger.sqlite
      answers   key, model, reply (JSON), input_tokens, output_tokens, cost, latency_s, created
      failures  key, error, fatal, created: requests of the last run that finally failed

A key is the content hash of what determines the answer: model, messages, sampling, sample index. Where the endpoint
is, how fast it was asked and which code asked it are no part of it. The ledger is asked before each request and
written before anything downstream sees the row; WAL mode keeps committed rows through kill -9.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.records import content_id

_TABLES = """
CREATE TABLE IF NOT EXISTS answers(
  key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, cost REAL, latency_s REAL NOT NULL, created REAL NOT NULL
);
-- Sums are read twice a second while a run is under way; this index spares them the replies.
CREATE INDEX IF NOT EXISTS spent ON answers(input_tokens, output_tokens, cost);
CREATE TABLE IF NOT EXISTS failures(
  key TEXT PRIMARY KEY, error TEXT NOT NULL, fatal INTEGER NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
"""


def request_key(model: str, messages: Sequence[Any], sampling: dict[str, Any], sample: int) -> str:
    """The key of one request: 16 hex digits."""
    return content_id(model, messages, sampling, sample)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request. Tokens are the endpoint's counts, cost is in US dollars, latency in seconds."""

    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    latency_s: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a ledger's answers, and how many requests of the last run failed."""

    answers: int
    failures: int
    input_tokens: int
    output_tokens: int
    cost: float


class Ledger:
    """One process's connection to a run's ledger; any number of processes may hold one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this survives the death of the process; only a power cut may take the last rows.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was answered before."""
        row = self._db.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else Reply(**json.loads(row[0]))

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Keep a reply; on return it is on disk. A key keeps its first reply."""
        text = json.dumps(asdict(reply), ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        self._db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, model, text, reply.input_tokens, reply.output_tokens, reply.cost, reply.latency_s, time.time()),
        )

    def fail(self, key: str, error: str, fatal: bool) -> None:
        """Note that a request finally failed; `fatal` where every other would fail the same way (a wrong key)."""
        self._db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (key, error, fatal, time.time()))

    def forget_failures(self) -> None:
        """Called at the start of a run: what failed is asked again."""
        self._db.execute("DELETE FROM failures")

    def fatal_error(self) -> str | None:
        """The first error that would have met every request."""
        row = self._db.execute("SELECT error FROM failures WHERE fatal ORDER BY created LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def totals(self) -> Totals:
        """Counts and sums, for progress and the manifest."""
        sums = self._db.execute(
            "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost), 0)"
            " FROM answers"
        ).fetchone()
        failures = self._db.execute("SELECT count(*) FROM failures").fetchone()[0]
        return Totals(sums[0], failures, sums[1], sums[2], sums[3])

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded in by the last one."""
        self._db.close()
