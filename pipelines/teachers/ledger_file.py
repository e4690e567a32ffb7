"""The ledger's file: made whole, looked over before it is opened, and one clear line for whatever is wrong with it.

Reads and writes ledger.sqlite beside `.ledger.lock`; `ledger.py` is what everything else uses.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from pipelines.errors import UserError
from pipelines.files import scratch_folder, sync_folder

# Raised when the tables change so that an older version would misread them.
_SCHEMA = 1
# Seconds to wait for another process: when the ledger is opened, and for each statement after that.
_OPEN_S = 4.0
_BUSY_S = 30.0
# Bytes with which a database of SQLite begins.
_HEADER = 100
_TABLES = """
CREATE TABLE IF NOT EXISTS answers(
  key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, cost REAL, latency_s REAL NOT NULL, created REAL NOT NULL,
  origin TEXT NOT NULL
);
-- Spares the sums of `totals` reading the replies.
CREATE INDEX IF NOT EXISTS spent ON answers(origin, input_tokens, output_tokens, cost);
CREATE TABLE IF NOT EXISTS failures(
  key TEXT PRIMARY KEY, error TEXT NOT NULL, fatal INTEGER NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused(
  key TEXT PRIMARY KEY, error TEXT NOT NULL, created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS set_aside(
  key TEXT NOT NULL, model TEXT NOT NULL, reply TEXT NOT NULL, reason TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS used(stage TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY(stage, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
LOCKED = "Another process holds the ledger {path}. Wait until it is done, or stop it, and run the same command again."
_RESTORE = "Put back a copy of it, or move it away to ask for everything anew."


class LedgerError(UserError):
    """The ledger cannot be opened, read or written; the message says why and what to do."""


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it, and nobody else writes meanwhile. For connections in autocommit mode."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # On a full disk SQLite has rolled back by itself.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def reason_of(path: Path, error: Exception) -> str:
    """One line for what went wrong with a ledger's file."""
    text = str(error)
    if "locked" in text:
        return LOCKED.format(path=path)
    if "disk is full" in text or "No space left" in text:
        return f"The disk is full: {path} cannot be written. Free some space and run the same command again."
    if "readonly" in text or "Read-only" in text or isinstance(error, PermissionError):
        return f"The ledger {path} cannot be written: the file or its folder is read-only. Change that, or its owner."
    if "unable to open" in text:
        return f"The ledger {path} cannot be opened: {text}. Look at its permissions and those of its folder."
    if "disk I/O" in text:
        return (
            f"The ledger {path} cannot be read or written (disk I/O error): the disk is full or broken, or the file "
            "may not grow any more (ulimit -f). Mend that and run the same command again: what was finished is kept."
        )
    if isinstance(error, sqlite3.DatabaseError):
        return f"{path} is damaged, or no ledger ({text}). {_RESTORE}"
    return f"The ledger {path} cannot be used ({text})."


def open_to_write(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; the ledger is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite's `timeout` does not hold for this: of two that open a new ledger at once, one would be refused.
    with FileLock(path.parent / ".ledger.lock", timeout=_OPEN_S, poll_interval=0.005):
        if not path.exists():
            _create(path)
        _check_file(path)
        db = _connect(path, "")
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > _SCHEMA:
                raise LedgerError(f"The ledger {path} was written by a newer version of SaferThoughts. Use that one.")
            # Raises where another process holds the ledger, or nothing can be written.
            with transaction(db):
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                if version < _SCHEMA:
                    db.execute(f"PRAGMA user_version = {_SCHEMA}")
        except BaseException:
            db.close()
            raise
    db.execute(f"PRAGMA busy_timeout = {int(1000 * _BUSY_S)}")
    # In WAL mode this survives the death of the process. A power cut may take the last rows, which for notes and copies
    # does no harm; `Ledger.put_all` writes answers with FULL.
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _create(path: Path) -> None:
    """Make an empty ledger whole: an empty file in its place is then always a damaged one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        db = sqlite3.connect(temporary, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_TABLES)
        finally:
            db.close()
        temporary.replace(path)
        # Its name, and that of its folder, survive a power cut.
        for folder in (path.parent, path.absolute().parent.parent):
            sync_folder(folder)
    finally:
        for left in path.parent.glob(f"{temporary.name}*"):
            left.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    """Refuse what SQLite would take for an empty database, or would notice only later."""
    if not path.is_file():
        raise LedgerError(f"{path} should be a run's ledger, and is a folder. Move it away.")
    size = path.stat().st_size
    if size < _HEADER:
        raise LedgerError(f"{path} is cut off: it has {size} bytes. {_RESTORE}")
    log = path.with_name(f"{path.name}-wal")
    try:
        # SQLite alone may open the file: closing any other handle of it ends this process's locks on it, and the next
        # process to leave the ledger takes its log away under us (https://www.sqlite.org/howtocorrupt.html, 2.2).
        with closing(_connect(path, "?mode=ro&immutable=1")) as db:
            db.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise LedgerError(f"{path} is damaged, or no ledger (it does not begin as one). {_RESTORE}") from error
        # With a log beside it the file may be behind: SQLite then takes the rest from there.
        if error.sqlite_errorcode == sqlite3.SQLITE_CORRUPT and not (log.exists() and log.stat().st_size):
            raise LedgerError(f"{path} is cut off: it has only {size} bytes. {_RESTORE}") from error


@contextmanager
def opened_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, on a full or a read-only file system as well."""
    _check_file(path)
    with ExitStack() as stack:
        try:
            db, there = _looked_into(path, "?mode=ro")
        except sqlite3.OperationalError:
            # SQLite makes files beside it even to read, which a full or a read-only disk refuses.
            waiting = path.with_name(f"{path.name}-wal")
            if waiting.exists() and waiting.stat().st_size:
                # Rows that are not in the ledger itself yet are read from a copy of both.
                folder = stack.enter_context(scratch_folder("ledger"))
                for file in (path, waiting):
                    shutil.copy(file, folder)
                db, there = _looked_into(folder / path.name, "?mode=rw")
            else:
                db, there = _looked_into(path, "?mode=ro&immutable=1")
        stack.callback(db.close)
        for statement in _TABLES.split(";"):
            name = statement.partition("IF NOT EXISTS ")[2].partition("(")[0]
            if "CREATE TABLE" in statement and name not in there:
                # One of an older version lacks a table that would be empty.
                db.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
        yield db


def _looked_into(path: Path, options: str) -> tuple[sqlite3.Connection, set[str]]:
    db = _connect(path, options)
    try:
        return db, _tables_of(db)
    except sqlite3.Error:
        db.close()
        raise


def _tables_of(db: sqlite3.Connection) -> set[str]:
    found = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.execute("SELECT count(*) FROM answers")
    return found


def _connect(path: Path, options: str) -> sqlite3.Connection:
    name = path.absolute().as_uri() + options
    return sqlite3.connect(name, uri=True, timeout=_OPEN_S, isolation_level=None, check_same_thread=False)
