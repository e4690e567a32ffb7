"""Synchronous calls of asynchronous code from anywhere: a script, a worker thread, a notebook, a coroutine.

Reads and writes nothing.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def outside_loop(work: Callable[[], T]) -> T:
    """Call `work`, which starts an event loop of its own, where none is running: in another thread if need be.

    Returns:
        What `work` returns; what it raises is raised.
    """
    try:
        asyncio.get_running_loop()
        running = True
    except RuntimeError:
        running = False
    # Not within the `except`: what fails in `work` would have it as its context.
    return aside(work) if running else work()


def aside(work: Callable[[], T]) -> T:
    """Call `work` in a thread of its own and wait for it: signals stay with the caller's handlers."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def call() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            future.set_exception(error)

    threading.Thread(target=call, name="aside", daemon=True).start()
    return future.result()
