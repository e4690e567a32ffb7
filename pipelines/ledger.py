"""The request ledger: every answered request of a run, so that nothing is lost and nothing is paid twice.

    ledger.sqlite
      answers   key, model, reply (JSON), input_tokens, output_tokens, cost, latency_s, created, origin: "" for what
                this run paid for, else the ledger it was taken over from
      failures  key, error, fatal, created: requests of the last call that finally failed
      used      stage, key: what judging and repair asked in their last call, so that `prune` leaves it
      notes     name, value: what the last call left for the process that started it

A key is the content hash of what determines the answer: model, messages, sampling, sample index. Where the endpoint
is, how fast it was asked and which code asked it are no part of it. The ledger is asked before each request and
written before anything downstream sees the row; WAL mode keeps committed rows through kill -9.
"""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.errors import UserError
from pipelines.files import scratch_folder
from pipelines.records import content_id

_TABLES = """
CREATE TABLE IF NOT EXISTS answers(
  key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, cost REAL, latency_s REAL NOT NULL, created REAL NOT NULL,
  origin TEXT NOT NULL
);
-- Sums are read twice a second while a run is under way; this index spares them the replies.
CREATE INDEX IF NOT EXISTS spent ON answers(origin, input_tokens, output_tokens, cost);
CREATE TABLE IF NOT EXISTS failures(
  key TEXT PRIMARY KEY, error TEXT NOT NULL, fatal INTEGER NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used(stage TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY(stage, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


def request_key(model: str, messages: Sequence[Any], sampling: dict[str, Any], sample: int) -> str:
    """The key of one request: 16 hex digits."""
    return content_id(model, messages, sampling, sample)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it, and nobody else writes meanwhile. For connections in autocommit mode."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request. Tokens are the endpoint's counts (`cached_tokens` are part of the input), cost is
    in US dollars, latency in seconds. `first_token_s`: seconds to the first piece of a streamed answer, None for any
    other. `notes`: what was odd about the answer, "" where nothing was. `refusal`: the API marked the answer as
    one. Ledgers of before have none of the three."""

    content: str | None
    reasoning_content: str | None
    reasoning: str | None
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    latency_s: float
    cached_tokens: int = 0
    first_token_s: float | None = None
    notes: str = ""
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """How many requests are answered, how many of the last call failed; tokens and US dollars spent by this run."""

    answers: int
    failures: int
    input_tokens: int
    output_tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What one model took, in tokens, US dollars (None where unpriced) and mean seconds; `origin` as in the ledger."""

    model: str
    origin: str
    answers: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    latency_s: float


def _opened(path: Path, query: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{query}", uri=True, timeout=60)
    try:
        db.execute("SELECT 1 FROM answers LIMIT 1").fetchone()
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


class Ledger:
    """One process's connection to a run's ledger; any number of processes may hold one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lenders: dict[str, Path] = {}
        name = path.absolute().as_uri()
        self._db = sqlite3.connect(name, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
        # SQLite's `timeout` does not hold for this: of two that open a new ledger at once, one would be refused.
        with FileLock(path.parent / ".ledger.lock", poll_interval=0.005):
            self._db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this survives the death of the process; only a power cut may take the last rows.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_TABLES)

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> "Iterator[Ledger]":
        """A ledger to look into, which is not written to and may be on a disk that cannot be.

        Raises:
            sqlite3.DatabaseError: it is no ledger, or broken.
        """
        with ExitStack() as stack:
            ledger = cls.__new__(cls)
            ledger._lenders = {}
            try:
                ledger._db = _opened(path, "mode=ro")
            except sqlite3.OperationalError:
                # SQLite makes files beside it even to read, which a full or a read-only disk refuses.
                waiting = path.with_name(f"{path.name}-wal")
                if waiting.exists() and waiting.stat().st_size:
                    # Rows that are not in the ledger itself yet are read from a copy of both.
                    folder = stack.enter_context(scratch_folder("ledger"))
                    for file in (path, waiting):
                        shutil.copy(file, folder)
                    ledger._db = _opened(folder / path.name, "mode=rw")
                else:
                    ledger._db = _opened(path, "mode=ro&immutable=1")
            stack.callback(ledger.close)
            yield ledger

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was answered before."""
        row = self._db.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else Reply(**json.loads(row[0]))

    def has(self, key: str) -> bool:
        """Whether a request was answered before."""
        return self._db.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone() is not None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Keep a reply; on return it is on disk. A key keeps its first reply."""
        text = json.dumps(asdict(reply), ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        self._db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, '')",
            (key, model, text, reply.input_tokens, reply.output_tokens, reply.cost, reply.latency_s, time.time()),
        )

    def borrow(self, other: Path) -> None:
        """Let `adopt` look into another run's ledger as well.

        Raises:
            UserError: there is none, or it is no ledger.
        """
        if not other.exists():
            raise UserError(f"There is no ledger {other} to reuse.")
        name = f"lender{len(self._lenders)}"
        try:
            self._db.execute(f"ATTACH ? AS {name}", (other.absolute().as_uri() + "?mode=ro",))
            self._db.execute(f"SELECT count(*) FROM {name}.failures")  # noqa: S608 - a name of ours
        except sqlite3.DatabaseError as error:
            raise UserError(f"{other} is no ledger that can be reused: {error}.") from error
        self._lenders[name] = other

    def adopt(self, key: str) -> bool:
        """Take an answer over from a borrowed ledger, at no cost to this run; whether there was one."""
        for name, other in self._lenders.items():
            columns = "key, model, reply, input_tokens, output_tokens, cost, latency_s, created"
            query = f"INSERT OR IGNORE INTO answers SELECT {columns}, ? FROM {name}.answers WHERE key = ?"  # noqa: S608
            taken = self._db.execute(query, (str(other), key))
            if taken.rowcount:
                return True
        return False

    def spent_by_model(self) -> list[Spent]:
        """Answers by model and origin, the largest first."""
        rows = self._db.execute(
            "SELECT model, origin, count(*), sum(input_tokens), sum(output_tokens), sum(cost), avg(latency_s)"
            " FROM answers GROUP BY model, origin ORDER BY count(*) DESC, model, origin"
        ).fetchall()
        return [Spent(*row) for row in rows]

    def failures(self) -> list[tuple[str, int]]:
        """Errors of the last call with how often each occurred, the most frequent first."""
        rows = self._db.execute("SELECT error, count(*) FROM failures GROUP BY error ORDER BY count(*) DESC, error")
        return [(str(row[0]), int(row[1])) for row in rows.fetchall()]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every answer with its key, model, origin and time, in the order of keys."""
        for key, model, origin, created, reply in self._db.execute(
            "SELECT key, model, origin, created, reply FROM answers ORDER BY key"
        ):
            yield {"key": key, "model": model, "origin": origin, "created": created, **json.loads(reply)}

    def every_key(self) -> Iterator[str]:
        """Every key, in order."""
        for row in self._db.execute("SELECT key FROM answers ORDER BY key"):
            yield str(row[0])

    def drop(self, keys: Iterable[str]) -> int:
        """Delete answers for good and give the space back; how many there were."""
        with transaction(self._db):
            dropped = self._db.executemany("DELETE FROM answers WHERE key = ?", ((key,) for key in keys)).rowcount
        self._db.execute("VACUUM")
        return max(dropped, 0)

    def fail(self, key: str, error: str, fatal: bool) -> None:
        """Note that a request finally failed; `fatal` where every other would fail the same way (a wrong key)."""
        self._db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (key, error, fatal, time.time()))

    def use(self, stage: str, key: str) -> None:
        """Note that a stage asks for this key."""
        self._db.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (stage, key))

    def forget_uses(self, stage: str) -> None:
        """Called at the start of a stage's call."""
        self._db.execute("DELETE FROM used WHERE stage = ?", (stage,))

    def used_keys(self) -> set[str]:
        """Every key that judging or repair asked in their last call."""
        return {str(row[0]) for row in self._db.execute("SELECT DISTINCT key FROM used")}

    def forget_failures(self) -> None:
        """Called at the start of a call: what failed is asked again."""
        self._db.execute("DELETE FROM failures")
        self._db.execute("DELETE FROM notes")

    def set_note(self, name: str, value: str) -> None:
        """Leave word for the process that started this one."""
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    def note(self, name: str) -> str | None:
        """A word that was left."""
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def failure(self, key: str) -> str | None:
        """Why a request of the last call failed."""
        row = self._db.execute("SELECT error FROM failures WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def fatal_error(self) -> str | None:
        """The first error that would have met every request."""
        row = self._db.execute("SELECT error FROM failures WHERE fatal ORDER BY created LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def totals(self) -> Totals:
        """How many requests are answered, and the sums over those that this run paid for."""
        (answers,) = self._db.execute("SELECT count(*) FROM answers").fetchone()
        sums = self._db.execute(
            "SELECT coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost), 0)"
            " FROM answers WHERE origin = ''"
        ).fetchone()
        failures = self._db.execute("SELECT count(*) FROM failures").fetchone()[0]
        return Totals(answers, failures, sums[0], sums[1], sums[2])

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded in by the last one."""
        self._db.close()
