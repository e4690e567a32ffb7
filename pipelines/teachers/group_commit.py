"""Answers kept in groups: many in one transaction, each on the disk before anybody hears of it.

Writes the ledger, from a thread of its own, so that the event loop goes on while the disk works. A disk that takes its
time makes larger groups, not a slower run.
"""

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

from pipelines.teachers.ledger import Answer, Ledger
from pipelines.teachers.ledger_file import LedgerError
from pipelines.teachers.reply import Reply

# Seconds from one group to the next, at least: answers gather meanwhile.
_GATHER_S = 0.01


class Group:
    """Answers, and uses of keys, that are written together."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.uses: list[tuple[str, str]] = []
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    async def on_disk(self) -> None:
        """Wait until the group is on the disk. Whoever stops waiting takes nothing out of it.

        Raises:
            LedgerError: it cannot be written.
        """
        await self._ended.wait()
        if self._error is not None:
            raise LedgerError(str(self._error)) from self._error

    def end(self, error: BaseException | None) -> None:
        """Let those who wait go on; called in the event loop."""
        self._error = error
        self._ended.set()


class GroupCommit:
    """Writes to a ledger in groups; use from one event loop, and close it."""

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path)
        self._loop = asyncio.get_running_loop()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._group = Group()
        self._closing = False
        self._unheard: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def put(self, key: str, model: str, reply: Reply) -> Group:
        """Have an answer kept, whatever becomes of the caller; the group that it is written with."""
        with self._lock:
            group = self._group
            group.answers.append((key, model, reply))
        self._wake.set()
        return group

    def use(self, stage: str, key: str) -> None:
        """Note that a stage asks for this key, some time before `close` ends."""
        with self._lock:
            self._group.uses.append((stage, key))
        self._wake.set()

    def close(self) -> None:
        """Write what is left, and close the ledger.

        Raises:
            LedgerError: uses of keys were not written.
        """
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._ledger.close()
        if self._unheard is not None:
            raise self._unheard

    def _work(self) -> None:
        closing, due = False, 0.0
        while not closing:
            self._wake.wait()
            if not self._closing:
                time.sleep(max(due - time.monotonic(), 0.0))
            due = time.monotonic() + _GATHER_S
            # What comes from here on sets it again.
            self._wake.clear()
            closing = self._closing
            with self._lock:
                group, self._group = self._group, Group()
            self._write(group)

    def _write(self, group: Group) -> None:
        error: BaseException | None = None
        try:
            if group.answers or group.uses:
                self._ledger.put_all(group.answers, group.uses)
        except BaseException as caught:  # noqa: BLE001 - whoever waits for the group raises it
            error = caught
            if not group.answers:
                self._unheard = caught
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(group.end, error)
