"""The request ledger: every answered request of a run, so that nothing is lost and nothing is paid twice.

    ledger.sqlite
      answers   key, model, reply (JSON), input_tokens, output_tokens, cost, latency_s, created, origin: "" for what
                this run paid for, else the ledger it was taken over from
      failures  key, error, fatal, created: requests of the last call that finally failed
      refused   key, error, created: requests that a teacher refuses for good; not sent again until `forget`
      set_aside key, model, reply, reason, created: answers that could not be read, and are asked for again
      used      stage, key: what judging and repair asked in their last call, so that `prune` leaves it
      notes     name, value: what the last call left for the process that started it

A key is the content hash of what determines the answer: model, messages, sampling, sample index. Where the endpoint
is, how fast it was asked and which code asked it are no part of it. The ledger is asked before each request and
written before anything downstream sees the row. WAL mode keeps committed rows through kill -9, and answers are
committed with `synchronous=FULL`, which keeps them through a power cut; `group_commit.py` does so for many at once.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.teachers.ledger_file import LOCKED, LedgerError, open_to_write, opened_to_read, reason_of, transaction
from pipelines.teachers.reply import DamagedReply, Reply, reply_of_json

_COLUMNS = "key, model, reply, input_tokens, output_tokens, cost, latency_s, created"


# What an answer is committed with: it waits for the disk.
_FOR_ANSWERS = "PRAGMA synchronous = FULL"
# In one query, since it is asked before every request.
_KNOWN = "SELECT (SELECT reply FROM answers WHERE key = ?), (SELECT error FROM refused WHERE key = ?)"
# What first questions are noted under, which belong to no stage.
PREFLIGHT = "preflight"


def request_key(model: str, messages: Sequence[Any], sampling: Mapping[str, Any], sample: int) -> str:
    """The key of one request: 16 hex digits."""
    return content_id(model, messages, sampling, sample)


# What is kept of a request: its key, the model, the reply.
Answer = tuple[str, str, Reply]


def _columns(answer: Answer) -> tuple[Any, ...]:
    key, model, reply = answer
    whole = reply.json().encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return key, model, whole, reply.input_tokens, reply.output_tokens, reply.cost, reply.latency_s, time.time()


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


@dataclass(frozen=True, slots=True)
class DaySpent:
    """What a run paid for on one day (UTC) to one model; `judging` where the judging stage asked. `cost` is of answers
    with a price, None where none has one; `unpriced` counts the others."""

    day: str
    model: str
    judging: bool
    answers: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost: float | None


class Ledger:
    """One process's connection to a run's ledger; any number of processes may hold one.

    Every method raises `LedgerError` where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._begin(path)
        with self._errors_named():
            self._db = open_to_write(path)

    def _begin(self, path: Path) -> None:
        self.path = path
        # Answers that this connection found damaged, with the reason.
        self.damaged: dict[str, str] = {}
        self._lenders: dict[str, Path] = {}

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> "Iterator[Ledger]":
        """A ledger to look into, which is not written to and may be on a disk that cannot be.

        Raises:
            LedgerError: it is no ledger, or broken.
        """
        ledger = cls.__new__(cls)
        ledger._begin(path)
        with ExitStack() as stack:
            # What the block does with other files is not the ledger's to explain.
            with ledger._errors_named():
                ledger._db = stack.enter_context(opened_to_read(path))
            yield ledger

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except Timeout as error:
            raise LedgerError(LOCKED.format(path=self.path)) from error
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(reason_of(self.path, error)) from error

    def _execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self._errors_named():
            return self._db.execute(query, values)

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._errors_named():
            return self._db.execute(query, values).fetchall()

    def _one(self, query: str, values: Sequence[Any] = ()) -> Any:
        with self._errors_named():
            return self._db.execute(query, values).fetchone()

    def get(self, key: str) -> Reply | None:
        """The reply to a request that was answered before. A damaged one is set aside, and is then none."""
        row = self._one("SELECT reply FROM answers WHERE key = ?", (key,))
        return None if row is None else self._read(key, str(row[0]))

    def _read(self, key: str, text: str) -> Reply | None:
        try:
            return reply_of_json(text)
        except DamagedReply as reason:
            self._set_aside(key, str(reason))
            return None

    def known(self, key: str) -> tuple[Reply | None, str | None]:
        """The reply to a request, from here or from a borrowed ledger; and why it is refused for good, where it is."""
        text, refusal = self._one(_KNOWN, (key, key))
        reply = None if text is None else self._read(key, str(text))
        if reply is None and self.adopt(key):
            reply = self.get(key)
        return reply, refusal

    def _set_aside(self, key: str, reason: str) -> None:
        self.damaged[key] = reason
        with self._errors_named(), transaction(self._db):
            self._db.execute(
                "INSERT INTO set_aside SELECT key, model, reply, ?, ? FROM answers WHERE key = ?",
                (reason, time.time(), key),
            )
            self._db.execute("DELETE FROM answers WHERE key = ?", (key,))

    def has(self, key: str) -> bool:
        """Whether a request was answered before."""
        return self.get(key) is not None

    def put(self, key: str, model: str, reply: Reply) -> None:
        """Keep a reply; on return it is on the disk, and no power cut takes it. A key keeps its first reply."""
        self.put_all([(key, model, reply)])

    def put_all(self, answers: Sequence[Answer], uses: Sequence[tuple[str, str]] = ()) -> None:
        """The same for many, in one transaction; `uses` are stages and keys as `use` has them."""
        with self._errors_named():
            if answers:
                self._db.execute(_FOR_ANSWERS)
            with transaction(self._db):
                # Only a key that is there already is passed over; whatever else cannot be inserted is an error.
                self._db.executemany(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, '') ON CONFLICT(key) DO NOTHING",
                    map(_columns, answers),
                )
                self._db.executemany("INSERT OR IGNORE INTO used VALUES (?, ?)", uses)
            if answers:
                self._db.execute("PRAGMA synchronous = NORMAL")

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
            self._db.execute(f"SELECT {_COLUMNS} FROM {name}.answers LIMIT 1")  # noqa: S608 - names of ours
        except sqlite3.DatabaseError as error:
            raise UserError(f"{other} is no ledger that can be reused: {error}.") from error
        self._lenders[name] = other

    def adopt(self, key: str) -> bool:
        """Take an answer over from a borrowed ledger, at no cost to this run; whether there was one."""
        for name, other in self._lenders.items():
            row = self._one(f"SELECT {_COLUMNS} FROM {name}.answers WHERE key = ?", (key,))  # noqa: S608
            if row is None:
                continue
            try:
                reply_of_json(str(row[2]))
            except DamagedReply:
                continue
            marks = ", ".join("?" * (len(row) + 1))
            self._execute(f"INSERT INTO answers VALUES ({marks}) ON CONFLICT(key) DO NOTHING", (*row, str(other)))  # noqa: S608
            return True
        return False

    def lends(self, stage: str, model: str) -> bool:
        """Whether a borrowed ledger has answers of a model that a stage asked for."""
        query = "SELECT 1 FROM {0}.answers JOIN {0}.used USING (key) WHERE stage = ? AND model = ? LIMIT 1"
        return any(self._one(query.format(name), (stage, model)) is not None for name in self._lenders)

    def spent_by_model(self) -> list[Spent]:
        """Answers by model and origin, the largest first."""
        rows = self._all(
            "SELECT model, origin, count(*), sum(input_tokens), sum(output_tokens), sum(cost), avg(latency_s)"
            " FROM answers GROUP BY model, origin ORDER BY count(*) DESC, model, origin"
        )
        return [Spent(*row) for row in rows]

    def spent_by_day(self) -> list[DaySpent]:
        """What this run itself paid for, by day, model, and whether judging asked, the earliest first."""
        rows = self._all(
            "SELECT coalesce(date(created, 'unixepoch'), 'unknown'), model,"
            " EXISTS(SELECT 1 FROM used WHERE stage = 'judge' AND used.key = answers.key),"
            " count(*), sum(cost IS NULL), sum(input_tokens), sum(output_tokens), sum(cost)"
            " FROM answers WHERE origin = '' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        return [DaySpent(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]

    def failures(self) -> list[tuple[str, int]]:
        """Errors of the last call with how often each occurred, the most frequent first."""
        rows = self._all("SELECT error, count(*) FROM failures GROUP BY error ORDER BY count(*) DESC, error")
        return [(str(row[0]), int(row[1])) for row in rows]

    def refusals(self) -> list[tuple[str, int]]:
        """Errors of the requests that are refused for good, as `failures` gives those of the last call."""
        rows = self._all("SELECT error, count(*) FROM refused GROUP BY error ORDER BY count(*) DESC, error")
        return [(str(row[0]), int(row[1])) for row in rows]

    def refuse(self, key: str, error: str) -> None:
        """Remember that a request is refused for good."""
        self._execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", (key, error, time.time()))

    def refusal(self, key: str) -> str | None:
        """Why a request is refused for good, None where it is not."""
        row = self._one("SELECT error FROM refused WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def forget_refusals(self) -> int:
        """Let what was refused for good be asked once more; how many requests there were."""
        return self._execute("DELETE FROM refused").rowcount

    def set_aside(self) -> list[tuple[str, str]]:
        """Keys of answers that could not be read, each with the reason."""
        return [(str(row[0]), str(row[1])) for row in self._all("SELECT key, reason FROM set_aside ORDER BY created")]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every answer with its key, model, origin and time, in the order of keys; damaged ones are left out, and in
        `damaged`."""
        with self._errors_named():
            for key, model, origin, created, reply in self._db.execute(
                "SELECT key, model, origin, created, reply FROM answers ORDER BY key"
            ):
                try:
                    values = asdict(reply_of_json(str(reply)))
                except DamagedReply as reason:
                    self.damaged[str(key)] = str(reason)
                    continue
                yield {"key": key, "model": model, "origin": origin, "created": created, **values}

    def every_key(self) -> Iterator[str]:
        """Every key, in order."""
        with self._errors_named():
            for row in self._db.execute("SELECT key FROM answers ORDER BY key"):
                yield str(row[0])

    def drop(self, keys: Iterable[str]) -> int:
        """Delete answers for good and give the space back; how many there were."""
        with self._errors_named():
            with transaction(self._db):
                dropped = self._db.executemany("DELETE FROM answers WHERE key = ?", ((key,) for key in keys)).rowcount
            self._db.execute("VACUUM")
        return max(dropped, 0)

    def fail(self, key: str, error: str, fatal: bool) -> None:
        """Note that a request finally failed; `fatal` where every other would fail the same way (a wrong key)."""
        self._execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (key, error, fatal, time.time()))

    def use(self, stage: str, key: str) -> None:
        """Note that a stage asks for this key."""
        self._execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (stage, key))

    def forget_uses(self, stage: str) -> None:
        """Called at the start of a stage's call."""
        self._execute("DELETE FROM used WHERE stage = ?", (stage,))

    def used_keys(self) -> set[str]:
        """Every key that judging or repair asked in their last call."""
        return {str(row[0]) for row in self._all("SELECT DISTINCT key FROM used")}

    def forget_failures(self) -> None:
        """Called at the start of a call: what failed is asked again."""
        self._execute("DELETE FROM failures")

    def failure(self, key: str) -> str | None:
        """Why a request of the last call failed."""
        row = self._one("SELECT error FROM failures WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def fatal_error(self) -> str | None:
        """The first error that would have met every request."""
        row = self._one("SELECT error FROM failures WHERE fatal ORDER BY created LIMIT 1")
        return None if row is None else str(row[0])

    def means_of(self, stage: str) -> dict[str, tuple[int, float, float]]:
        """By model, the answers to what a stage noted that it asks for: how many, mean tokens of input and output."""
        rows = self._all(
            "SELECT model, count(*), avg(input_tokens), avg(output_tokens) FROM answers JOIN used USING (key)"
            " WHERE stage = ? GROUP BY model",
            (stage,),
        )
        return {str(model): (int(count), float(read), float(written)) for model, count, read, written in rows}

    def seconds_per_token(self) -> dict[str, float]:
        """By model, how long its answers took for each token of output."""
        rows = self._all("SELECT model, sum(latency_s), sum(output_tokens) FROM answers GROUP BY model")
        return {str(model): seconds / tokens for model, seconds, tokens in rows if seconds and tokens}

    def asked_for(self, stage: str) -> int:
        """How many of the answers a stage noted that it asks for."""
        row = self._one("SELECT count(*) FROM answers JOIN used USING (key) WHERE stage = ?", (stage,))
        return int(row[0])

    def totals(self) -> Totals:
        """How many requests are answered, and the sums over those that this run paid for."""
        (answers,) = self._one("SELECT count(*) FROM answers")
        sums = self._one(
            "SELECT coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost), 0)"
            " FROM answers WHERE origin = ''"
        )
        failures = self._one("SELECT count(*) FROM failures")[0]
        return Totals(answers, failures, sums[0], sums[1], sums[2])

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded in by the last one."""
        with self._errors_named():
            self._db.close()
