"""Stopping requests from outside: SIGINT, SIGTERM and SIGHUP end what is under way, while its block runs.

Everywhere else signals are the front door's (`pipelines/interrupts.py`), which leaves those to us that we handle.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipelines.interrupts import SAME_WISH_S
from pipelines.runner.outcomes import Control, Ending

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_end(control: Control) -> Iterator[None]:
    """Let the three signals end `control` while the block runs; a second one gets its default handler.

    One that is ignored (nohup, a background shell) stays ignored. Outside the main thread nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            control.end(Ending("signal", signal.Signals(number).name))
        elif time.monotonic() - first > SAME_WISH_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    kept: dict[signal.Signals, Any] = {}
    for number in _NUMBERS:
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            kept[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
