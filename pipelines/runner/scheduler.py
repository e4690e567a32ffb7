"""Rows in, outcomes out: many rows at once, bounded memory, and no way to hang.

`run_rows` works inside an event loop. `in_thread` iterates it from synchronous code, in a thread with a loop of its
own, so that it works in a notebook, in a worker thread and in the main thread alike.
"""

import asyncio
import errno
import gc
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipelines.errors import UserError
from pipelines.runner.outcomes import Control, Ending, NotAttempted, Outcome, ResultT, RowT
from pipelines.teachers.client import TeacherError

# Outcomes that may wait to be taken before workers pause.
_MOST_WAITING = 1000
# So many rows in a row with an error that nobody foresaw, and no row done, end the run.
STRANGE_TO_STOP = 10
# Seconds that a thread may take to end after it was asked to; after that it is left behind.
_GRACE_S = 3.0
_NO_PLACE = {
    errno.ENOSPC: "The disk is full.",
    errno.EDQUOT: "The disk quota is used up.",
    errno.EFBIG: "A file may not grow any more (ulimit -f).",
    errno.EROFS: "The file system is read-only.",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lane(Generic[RowT]):
    """Rows that are worked on in their order, `at_once` together; a slow lane does not hold up another."""

    rows: Iterable[RowT]
    at_once: int


class _Basket(Generic[T]):
    """Outcomes between workers and whoever takes them; workers pause while it is full."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._room, self.arrived = asyncio.Event(), asyncio.Event()
        self._room.set()

    async def put(self, item: T) -> None:
        await self._room.wait()
        self._items.append(item)
        self.arrived.set()
        if len(self._items) >= _MOST_WAITING:
            self._room.clear()

    def take(self) -> list[T]:
        self.arrived.clear()
        taken, self._items = self._items, []
        self._room.set()
        return taken


class _Worker(Generic[RowT, ResultT]):
    """Works on rows one after the other, whatever the work raises."""

    def __init__(self, work: Callable[[RowT], Awaitable[ResultT]], control: Control) -> None:
        self._work, self._control = work, control
        self._strange: list[str] = []

    async def outcome(self, row: RowT) -> Outcome[RowT, ResultT]:
        try:
            result = await self._work(row)
        except NotAttempted as reason:
            return Outcome(row, "not attempted", reason=str(reason))
        except TeacherError as failure:
            return Outcome(row, "failed", reason=str(failure), permanent=failure.permanent)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, GeneratorExit) or (
                isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
            ):
                raise
            if (broken := unusable(error)) is not None:
                self._control.end(Ending("broken", broken))
                return Outcome(row, "not attempted", reason=broken)
            return Outcome(row, "failed", reason=self._noted(error))
        self._strange.clear()
        return Outcome(row, "done", result)

    def _noted(self, error: BaseException) -> str:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self._strange.append(reason)
        if len(self._strange) == STRANGE_TO_STOP:
            self._control.end(
                Ending("broken", f"Stopped after {STRANGE_TO_STOP} rows in a row failed; the first: {self._strange[0]}")
            )
        return reason


def unusable(error: BaseException) -> str | None:
    """One line where an error says that nothing more can be kept (a full disk, a damaged ledger), else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, sqlite3.Error):
        return f"The ledger cannot be used: {error}."
    if isinstance(error, OSError) and error.errno in _NO_PLACE:
        return _NO_PLACE[error.errno]
    return None


async def run_rows(
    lanes: Sequence[Lane[RowT]], work: Callable[[RowT], Awaitable[ResultT]], control: Control
) -> AsyncIterator[list[Outcome[RowT, ResultT]]]:
    """Work on every row and give each one's outcome, in the order of completion, in lists as they come.

    Args:
        lanes: The rows. They are pulled as places get free, so that memory does not grow with their number.
        work: What is done with a row. Whatever it raises is that row's failure.
        control: Ends everything early. Rows under way are then given up and come back as not attempted; rows that
            were not pulled yet do not come back.

    Raises:
        Exception: what the iterables of rows raise.
    """
    basket: _Basket[Outcome[RowT, ResultT]] = _Basket()
    worker = _Worker(work, control)
    given_up: list[Outcome[RowT, ResultT]] = []

    async def follow(rows: Iterator[RowT]) -> None:
        for row in rows:
            if control.ending is not None:
                given_up.append(Outcome(row, "not attempted", reason="the run was stopped"))
                return
            try:
                await basket.put(await worker.outcome(row))
            except asyncio.CancelledError:
                given_up.append(Outcome(row, "not attempted", reason="the run was stopped"))
                raise

    tasks: list[asyncio.Task[None]] = []
    for lane in lanes:
        rows = iter(lane.rows)
        tasks += [asyncio.create_task(follow(rows)) for _ in range(max(lane.at_once, 1))]
    everything = asyncio.gather(*tasks)
    everything.add_done_callback(lambda _: basket.arrived.set())
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: there is nothing left to cancel
            loop.call_soon_threadsafe(everything.cancel)

    control.on_end(cancel)
    try:
        while not everything.done():
            await basket.arrived.wait()
            if taken := basket.take():
                yield taken
        if rest := basket.take():
            yield rest
        if control.ending is None:
            everything.result()
        elif not everything.cancelled():
            everything.exception()  # an error beside the ending is not worth a warning
        if given_up:
            yield given_up
    finally:
        everything.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def in_thread(batches: Callable[[], AsyncIterator[T]], control: Control) -> Iterator[T]:
    """Iterate asynchronous code from here, at the caller's pace, in a thread with an event loop of its own.

    Once `control` has ended, the thread has a few seconds; one that does not end by then is left behind.
    """
    handed: queue.Queue[tuple[str, Any]] = queue.Queue()
    loop = asyncio.new_event_loop()
    # Two lists wait at most; the loop itself never blocks on whoever takes them.
    free = asyncio.Semaphore(2)

    async def pump() -> None:
        async with aclosing(batches()) as source:  # type: ignore[type-var]
            async for batch in source:
                await free.acquire()
                handed.put(("batch", batch))

    def work() -> None:
        # Python need not look through all that is loaded, again and again, for what may go.
        gc.freeze()
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(pump())
            handed.put(("end", None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            handed.put(("error", error))
        finally:
            gc.unfreeze()

    def in_loop(act: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # it is closed: everything was handed over
            loop.call_soon_threadsafe(act)

    def leave() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    def overdue() -> None:
        timer = threading.Timer(_GRACE_S, handed.put, [("end", None)])
        timer.daemon = True
        timer.start()

    thread = threading.Thread(target=work, name="request-runner", daemon=True)
    thread.start()
    control.on_end(overdue)
    whole = False
    try:
        while True:
            kind, value = handed.get()
            whole = kind != "batch"
            if kind == "error":
                raise value
            if whole:
                return
            in_loop(free.release)
            yield value
    finally:
        if not whole:
            control.end(Ending("broken", "the rows were not all taken"))
            in_loop(leave)
        thread.join(_GRACE_S)
