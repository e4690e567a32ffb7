"""Stopping from outside: SIGTERM and SIGHUP are Ctrl-C, and a command that is asked to stop ends within five seconds.

The front door calls `listen` once. SIGTERM (`timeout`, a service's stop) and SIGHUP (a closed terminal) are passed on
as SIGINT, so that whoever handles that one handles all. Python runs a handler only between two of its own instructions;
so a thread hears of signals as well: it interrupts what is registered with `on_stop`, such as a query of DuckDB, and
ends the process where nothing else did in time. A stage that answers signals with a handler of its own, or inside
`unhurried`, is left to itself.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# From the signal to the end by force; the promise is five seconds.
_GRACE_S = 4.0
# `timeout` sends its signal to the process and then to its group: what comes this soon is the same wish.
SAME_WISH_S = 1.0
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_STOPPED = 130
_LOOK_EVERY_S = 0.5

_actions: list[Callable[[], object]] = []
_unhurried = 0
_last_passed_on = -SAME_WISH_S
_asked = threading.Event()


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


@contextmanager
def on_stop(action: Callable[[], object]) -> Iterator[None]:
    """Call `action`, from another thread, when a stop is asked for while the block runs."""
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)


@contextmanager
def unhurried() -> Iterator[None]:
    """A block that answers Ctrl-C itself: it ends an answer in a chat, or waits for a member to save its checkpoint."""
    global _unhurried
    _unhurried += 1
    try:
        yield
    finally:
        _unhurried -= 1


def end_with(parent: int) -> None:
    """Have this process end within a second when its parent does, even by kill -9: a thread looks for it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def listen(say: Callable[[], str]) -> None:
    """Listen for signals from here on; the main thread's to call.

    Args:
        say: The line to end with, where the process has to be ended by force.
    """
    for number in _PASSED_ON:
        # Ignored means: by nohup, or by a shell that put us into the background. It stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _pass_on)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_watch, args=(reading, say), daemon=True, name="signals").start()


def _pass_on(number: int, frame: FrameType | None) -> None:
    global _last_passed_on
    now = time.monotonic()
    if now - _last_passed_on < SAME_WISH_S:
        return
    _last_passed_on = now
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
    else:
        raise KeyboardInterrupt


def _forget() -> None:
    """A forked child ends by SIGTERM at once, as whoever forked it expects."""
    for number in _PASSED_ON:
        if signal.getsignal(number) is _pass_on:
            signal.signal(number, signal.SIG_DFL)
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)


def _watch(reading: int, say: Callable[[], str]) -> None:
    wanted = {signal.SIGINT, *_PASSED_ON}
    while True:
        numbers = set(os.read(reading, 64))
        if not numbers & wanted:
            continue
        ours = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)
        if _unhurried or any(not _is_ours(number, ours) for number in numbers & wanted):
            continue
        _asked.set()
        for action in tuple(_actions):
            with contextlib.suppress(Exception):
                action()
        threading.Thread(target=_end_in_time, args=(say,), daemon=True).start()


def _is_ours(number: int, interrupts_are: bool) -> bool:
    """Whether a signal leads to KeyboardInterrupt, and not to a handler that some stage put in its place."""
    handler = signal.getsignal(number)
    return interrupts_are and ((number == signal.SIGINT and handler is not signal.SIG_IGN) or handler is _pass_on)


def _end_in_time(say: Callable[[], str]) -> None:
    time.sleep(_GRACE_S)
    if _unhurried:
        return
    # Not by sys.stderr, whose lock somebody may hold who does not move. The cursor may be hidden by a progress bar.
    shown = "\x1b[?25h\r" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}{say()}\n".encode())
    os._exit(_STOPPED)
