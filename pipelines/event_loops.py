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
    if asyncio._get_running_loop() is None:  # not within an `except`: what fails in `work` would have it as its context
        return work()
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def call() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            future.set_exception(error)

    threading.Thread(target=call, name="outside-loop", daemon=True).start()
    return future.result()
