"""What a run knows of the batches it asked for: a small table, and the file of each batch that is not finished.

    batches.sqlite
      batches  serial, mark, content, teacher, model, base_url, requests, held, file_id, batch_id, outcome, created
      items    serial, line, key, attempt: the requests of batches that are not finished
    batches/SERIAL.jsonl  the requests as they are uploaded; removed with the batch

A batch stands here, with its file, before anything of it is sent: whoever comes back after kill -9 finds what may have
been submitted. `mark` is the hash of what is asked, in which run and for which time; it travels with the batch, so that
one whose creation was never answered can be found at the provider.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import RunFolder, atomic
from pipelines.teachers.ledger_file import transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS batches(
  serial INTEGER PRIMARY KEY, mark TEXT NOT NULL UNIQUE, content TEXT NOT NULL, teacher TEXT NOT NULL,
  model TEXT NOT NULL, base_url TEXT NOT NULL, requests INTEGER NOT NULL, held INTEGER NOT NULL, file_id TEXT,
  batch_id TEXT, outcome TEXT, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS items(
  serial INTEGER NOT NULL, line INTEGER NOT NULL, key TEXT NOT NULL, attempt INTEGER NOT NULL,
  PRIMARY KEY(serial, line)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS waiting ON items(key);
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a batch asks."""

    teacher: str
    model: str
    base_url: str


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch: its key in the ledger, the body that is sent, and how often it was asked before."""

    key: str
    body: dict[str, Any]
    attempt: int = 0

    def encoded(self) -> bytes:
        """The line of the uploaded file, with its end."""
        request = {"custom_id": self.key, "method": "POST", "url": "/v1/chat/completions", "body": self.body}
        return json.dumps(request, sort_keys=True).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is not finished; `batch_id` is None until the provider has told it. `held`: only when alone."""

    serial: int
    mark: str
    model: str
    requests: int
    held: bool
    file_id: str | None
    batch_id: str | None
    created: float


class BatchStore:
    """One run's batches, from one process at a time for each teacher."""

    def __init__(self, run: RunFolder) -> None:
        self._folder = run.path / "batches"
        self._identity = (run.name, str(run.manifest()["created"]))
        self._db = sqlite3.connect(run.path / "batches.sqlite", timeout=60, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_TABLES)
        for (serial,) in self._db.execute("SELECT serial FROM batches WHERE outcome IS NOT NULL"):
            self._clear(serial)

    def close(self) -> None:
        """Close the table."""
        self._db.close()

    def path(self, batch: Batch) -> Path:
        """The file of a batch that is not finished."""
        return self._path(batch.serial)

    def unfinished(self, teacher: str, base_url: str) -> list[Batch]:
        """Batches whose answers are still to be fetched, in the order in which they were written."""
        names = ", ".join(item.name for item in fields(Batch))
        rows = self._db.execute(
            f"SELECT {names} FROM batches WHERE outcome IS NULL AND teacher = ? AND base_url = ? ORDER BY serial",  # noqa: S608 - names of ours
            (teacher, base_url),
        )
        return [Batch(*row) for row in rows.fetchall()]

    def items(self, batch: Batch) -> Iterator[Line]:
        """The requests of a batch, in the order of its file; may be read on while `finish` is under way.

        Raises:
            UserError: its file is gone.
        """
        attempts = self._db.execute("SELECT attempt FROM items WHERE serial = ? ORDER BY line", (batch.serial,))
        return self._read(batch, [int(row[0]) for row in attempts.fetchall()])

    def _read(self, batch: Batch, attempts: list[int]) -> Iterator[Line]:
        try:
            with self.path(batch).open("rb") as file:
                for row, attempt in zip(file, attempts, strict=True):
                    request = json.loads(row)
                    yield Line(request["custom_id"], request["body"], attempt)
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is gone, and a batch is not finished without it. Put it back, or give up every "
                f"batch of this run: delete batches.sqlite beside that folder."
            ) from error

    def write(self, origin: Origin, lines: Iterable[Line], most: int, most_bytes: int) -> None:
        """Write requests as batches of at most `most` requests and `most_bytes` bytes, each request only once.

        Raises:
            UserError: a request is in an unfinished batch of another teacher or endpoint.
        """
        with transaction(self._db):
            self._write(origin, lines, most, most_bytes, held=False)

    def uploaded(self, batch: Batch, file_id: str) -> None:
        """Keep the id of a batch's upload."""
        self._db.execute("UPDATE batches SET file_id = ? WHERE serial = ?", (file_id, batch.serial))

    def submitted(self, batch: Batch, batch_id: str) -> None:
        """Keep the id that the provider gave to a batch."""
        self._db.execute("UPDATE batches SET batch_id = ? WHERE serial = ?", (batch_id, batch.serial))

    def finish(
        self, batch: Batch, origin: Origin, outcome: str, again: Iterable[Line], most: int, most_bytes: int, held: bool
    ) -> None:
        """Be done with a batch, and in the same transaction write what is to be asked again."""
        with transaction(self._db):
            self._db.execute("DELETE FROM items WHERE serial = ?", (batch.serial,))
            self._db.execute("UPDATE batches SET outcome = ? WHERE serial = ?", (outcome, batch.serial))
            self._write(origin, again, most, most_bytes, held)
        self._clear(batch.serial)

    def _write(self, origin: Origin, lines: Iterable[Line], most: int, most_bytes: int, held: bool) -> None:
        fresh = (line for line in lines if not self._waits(line.key, origin))
        line = next(fresh, None)
        while line is not None:
            serial = self._db.execute("SELECT coalesce(max(serial), 0) + 1 FROM batches").fetchone()[0]
            digest = hashlib.sha256()
            count = size = 0
            # Another transaction may not take this serial: the one that is open holds the table.
            with atomic(self._path(serial)) as temporary, temporary.open("wb") as file:
                while line is not None and (count == 0 or (count < most and size + len(line.encoded()) <= most_bytes)):
                    row = line.encoded()
                    file.write(row)
                    digest.update(row)
                    count, size = count + 1, size + len(row)
                    self._db.execute("INSERT INTO items VALUES (?, ?, ?, ?)", (serial, count, line.key, line.attempt))
                    line = next(fresh, None)
            content = digest.hexdigest()
            before = self._db.execute("SELECT count(*) FROM batches WHERE content = ?", (content,)).fetchone()[0]
            mark = content_id(self._identity, origin.teacher, origin.base_url, content, before)
            self._db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?)",
                (serial, mark, content, origin.teacher, origin.model, origin.base_url, count, held, time.time()),
            )

    def _clear(self, serial: int) -> None:
        """Remove a batch's files, with what a killed process left half-written of them."""
        for pattern in (f"{serial:05d}.*", f".{serial:05d}.*"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _waits(self, key: str, origin: Origin) -> bool:
        """Whether a request is in a batch already. One that is with somebody else would be paid twice."""
        row = self._db.execute(
            "SELECT teacher, base_url FROM items LEFT JOIN batches USING (serial) WHERE key = ?", (key,)
        ).fetchone()
        # The batch that is being written has no row yet.
        if row is not None and tuple(row) not in ((None, None), (origin.teacher, origin.base_url)):
            raise UserError(
                f"A batch of teacher '{row[0]}' at {row[1]} holds requests that '{origin.teacher}' at {origin.base_url}"
                " would be asked now. Set the teacher back to fetch its answers, or give up every batch of this run: "
                f"delete batches.sqlite in {self._folder.parent}; their requests are then asked, and paid, again."
            )
        return row is not None

    def _path(self, serial: int) -> Path:
        return self._folder / f"{serial:05d}.jsonl"


@contextmanager
def opened(run: RunFolder, teacher: str) -> Iterator[BatchStore]:
    """A run's batches while the block runs, for one teacher, which no other process may ask meanwhile.

    Raises:
        UserError: another process does.
    """
    lock = FileLock(run.path / f".batch.{content_id(teacher)}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process is at work on the batches of teacher '{teacher}' in {run.path}. Wait for it, or stop it."
        ) from error
    try:
        with closing(BatchStore(run)) as store:
            yield store
    finally:
        lock.release()
