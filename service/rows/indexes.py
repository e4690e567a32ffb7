"""The row indexes of all runs: laid out when they are first asked for, their words indexed in the background.

Both are done by `layout.py` in processes of their own, which end with the service.
"""

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa

from pipelines.errors import UserError
from pipelines.runs import RunFolder
from service.jobs.commands import last_line
from service.rows.columns import Columns
from service.rows.layout import mark_of, path_of
from service.rows.reading import RowIndex

# Runs laid out at once.
_MOST_AT_ONCE = 2
# The words of a run can wait for what people wait for.
_NICE = 10


class RowIndexes:
    """The indexes of all runs."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[str, Future[RowIndex]]] = {}
        self._guard = threading.Lock()
        self._layouts = ThreadPoolExecutor(_MOST_AT_ONCE, "rows")
        self._words = ThreadPoolExecutor(1, "words")
        self._processes: set[subprocess.Popen[str]] = set()

    def of(self, run: RunFolder) -> RowIndex:
        """The index of a run as it is now.

        Raises:
            UserError: the run has no responses yet, or a table of it is broken.
        """
        return self._future(run).result()

    def soon(self, run: RunFolder, wait_s: float) -> RowIndex | None:
        """The same, or None where it takes longer than so many seconds."""
        future = self._future(run)
        with suppress(TimeoutError):
            return future.result(wait_s)
        return None

    def forget(self, runs: Path, name: str) -> None:
        """Delete what was laid out of a run that is no more, or has another name."""
        with self._guard:
            self._asked.pop(name, None)
        for ending in ("sqlite", "arrow", "words.sqlite"):
            path_of(runs, name, ending).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop what is being laid out: it is begun anew when it is asked for."""
        for pool in (self._layouts, self._words):
            pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.kill()

    def _future(self, run: RunFolder) -> "Future[RowIndex]":
        run.require("responses")
        mark = mark_of(run)
        with self._guard:
            asked = self._asked.get(run.name)
            gone = asked is not None and asked[1].done() and not path_of(run.path.parent, run.name).exists()
            failed = asked is not None and asked[1].done() and asked[1].exception() is not None
            if asked is None or asked[0] != mark or gone or failed:
                asked = self._asked[run.name] = (mark, self._layouts.submit(self._index, run, mark))
            return asked[1]

    def _index(self, run: RunFolder, mark: str) -> RowIndex:
        texts = path_of(run.path.parent, run.name)
        figures = path_of(run.path.parent, run.name, "arrow")
        if _mark_in(texts) != mark or _columns(figures, mark) is None:
            self._lay_out(run)
        columns = _columns(figures, None)
        if columns is None:
            raise UserError(f"The rows of {run.name} changed while they were laid out. Ask again.")
        index = RowIndex(texts, columns)
        self._words.submit(self._index_words, run, index)
        return index

    def _index_words(self, run: RunFolder, index: RowIndex) -> None:
        try:
            if _mark_in(path_of(run.path.parent, run.name, "words.sqlite")) != index.mark:
                self._lay_out(run, "--words")
            index.set_words()
        except (UserError, RuntimeError, OSError) as error:
            index.set_words(f"The words of {run.name} cannot be searched: {error}")

    def _lay_out(self, run: RunFolder, *options: str) -> None:
        command = [sys.executable, "-m", "service.rows.layout", str(run.path.parent), run.name, *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._processes.add(process)
        if options:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        try:
            _, errors = process.communicate()
        finally:
            self._processes.discard(process)
        if process.returncode:
            last = last_line(errors) or "it says nothing"
            raise UserError(last) if process.returncode == 2 else RuntimeError(f"The rows cannot be laid out: {last}")


def _columns(path: Path, mark: str | None) -> Columns | None:
    with suppress(OSError, ValueError, pa.ArrowException):
        found = Columns(path)
        return found if mark in (None, found.mark) else None
    return None


def _mark_in(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return str(db.execute("SELECT mark FROM made").fetchone()[0])
    except sqlite3.Error:
        return None
