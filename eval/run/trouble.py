"""What the machine refuses while Inspect works: a full disk, a size limit, a read-only file system, as one clear line.

Inspect tells of such faults in many places, a traceback each, and some of them end nothing: every answer that comes
afterwards would be paid for and lost. Reads and writes nothing; `eval/run/inspect_session.py` uses it.
"""

import errno
import logging
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipelines.interrupts import unhurried

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
# SQLite tells these by words.
_SQLITE = ("disk is full", "disk i/o error", "readonly database", "unable to open database")
# Of exceptions within exceptions; a chain may lead back to itself.
_DEEPEST = 20


def refused_by_machine(error: BaseException | None, depth: int = 0) -> str:
    """What the machine refused, in words, "" where an error is something else."""
    if error is None or depth > _DEEPEST:
        return ""
    if isinstance(error, OSError) and error.errno in _REFUSED:
        where = f": {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno)}{where}"
    if isinstance(error, sqlite3.OperationalError) and any(words in str(error).lower() for words in _SQLITE):
        return str(error)
    inner: list[BaseException | None] = [error.__cause__, error.__context__]
    if isinstance(error, BaseExceptionGroup):
        inner = [*error.exceptions, *inner]
    return next((found for one in inner if (found := refused_by_machine(one, depth + 1))), "")


class Watch(logging.Handler):
    """Logging handler for errors that Inspect only logs; the first one stops the evaluation as Ctrl-C does."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found = ""
        self.stack = ExitStack()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.hear(refused_by_machine(error) or _in_words(record.getMessage()))

    def hear(self, found: str) -> None:
        """End the work if something was refused."""
        if found and not self.found:
            self.found = found
            # Nobody asked to stop: what is under way may take its time to be kept, and the exit code is another.
            self.stack.enter_context(unhurried())
            signal.raise_signal(signal.SIGINT)

    def sample_failed(self, message: str) -> None:
        """Hear of a sample that ended with an error."""
        self.hear(_in_words(message))


def _in_words(text: str) -> str:
    words = (*(os.strerror(number) for number in (errno.ENOSPC, errno.EFBIG, errno.EROFS)), *_SQLITE[:3])
    return next((one for one in words if one.lower() in text.lower()), "")


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch Inspect's log while the block runs; `found` is what was refused, "" so far. logging itself keeps still."""
    handler, loud = Watch(), logging.raiseExceptions
    logging.raiseExceptions = False
    logging.getLogger().addHandler(handler)
    try:
        with handler.stack:
            yield handler
    finally:
        logging.getLogger().removeHandler(handler)
        logging.raiseExceptions = loud


def close_traces() -> None:
    """Close and remove Inspect's trace file: packing it at the end of the process may fail with a traceback."""
    for handler in logging.getLogger().handlers:
        trace = getattr(handler, "trace_logger", None)
        if isinstance(trace, logging.FileHandler):
            with suppress(OSError):
                trace.close()
            with suppress(OSError):
                Path(trace.baseFilename).unlink(missing_ok=True)
