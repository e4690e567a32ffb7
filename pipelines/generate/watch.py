"""Watching a Distilabel pipeline from a thread: its link, its processes, and whoever wants it to end.

Distilabel waits for ever for a step that failed or whose process is gone. The watch gives the pipeline up then, and
kills what is left of its processes where that is not enough.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Listener, wait
from types import TracebackType
from typing import Any

from pipelines.generate.link import received
from pipelines.runner.outcomes import Control, Ending, Tally

# Called with the asking step's tally, and with the error of a request that failed or "".
Hear = Callable[[Tally, str], None]

# How a process of ours is asked to end from outside.
_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOKS = 50
# Seconds that a pipeline may take to end by itself once it is given up.
_GRACE_S = 2.0


class Watch(threading.Thread):
    """Use as a context manager around a pipeline's run; `close` gives why it ended early, if it did."""

    def __init__(self, listener: Listener, control: Control, hear: Hear) -> None:
        super().__init__(name="pipeline-watch", daemon=True)
        self.control = control
        self._listener, self._hear = listener, hear
        # The listener's socket is no public attribute, and `wait` needs it.
        self._socket: Any = listener._listener._socket  # type: ignore[attr-defined]
        self._links: list[Connection[Any, Any]] = []
        self._processes: dict[int, Any] = {}
        self._followed: dict[int, Any] = {}
        self._give_up: Callable[[Ending], None] | None = None
        self._woken, self._wake = os.pipe()
        self._closed = False
        self._given_up_at: float | None = None
        control.on_end(self._signal)

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def follow(self, processes: Sequence[Any], give_up: Callable[[Ending], None]) -> None:
        """Watch these processes from here on; `give_up` makes the pipeline end."""
        self._processes = {process.sentinel: process for process in processes}
        self._give_up = give_up
        self._signal()

    def let_go(self) -> None:
        """The processes may end now; that one has ended already is noticed first."""
        followed, self._processes = self._processes, {}
        for process in _ended(followed, 0):
            self._name_end(process)
        self._followed = followed

    def explain(self, error: Exception) -> None:
        """Where the pipeline failed since it lost the connection to a process, name that as the end."""
        if isinstance(error, ConnectionError | EOFError) and self.control.ending is None:
            for process in _ended(self._followed, _GRACE_S):
                self._name_end(process)

    def close(self) -> Ending | None:
        """Stop watching, once all that the step sent is read."""
        if not self._closed:
            self._closed = True
            self._signal()
            self.join()
            for link in self._links:
                link.close()
            # First out of reach of `_signal`, which a signal handler may call at any time.
            wake, self._wake = self._wake, -1
            os.close(wake)
            os.close(self._woken)
        return self.control.ending

    def run(self) -> None:
        """The thread."""
        while True:
            closing = self._closed
            processes = dict(self._processes)
            objects = [self._woken, self._socket, *self._links, *processes]
            ready = wait(objects, 0 if closing else (0.2 if self._given_up_at else None))
            if closing and ready in ([], [self._woken]):
                return
            for item in ready:
                if item == self._woken:
                    os.read(self._woken, 4096)
                elif item is self._socket:
                    with suppress(OSError):
                        self._links.append(self._listener.accept())
                elif isinstance(item, int):
                    self._process_ended(processes[item])
                else:
                    self._receive(item)
            self._see_to_the_end()

    def _signal(self) -> None:
        with suppress(OSError):
            os.write(self._wake, b".")

    def _receive(self, link: Any) -> None:
        message = received(link)
        if message is None:
            self._links.remove(link)
            link.close()
        elif isinstance(message, Ending):
            self.control.end(message)
        else:
            self._hear(*message)

    def _process_ended(self, process: Any) -> None:
        if self._processes.pop(process.sentinel, None) is not None:
            self._name_end(process)

    def _name_end(self, process: Any) -> None:
        # The pool looks after its processes as well: where it was first, the code is there a moment later.
        for _ in range(_LOOKS):
            if process.exitcode is not None or self.control.ending is not None:
                break
            time.sleep(0.02)
        number = -(process.exitcode or 0)
        if number in _ASKED:
            # The whole group was signalled, and this process may not have come to its own signal yet.
            self.control.end(Ending("signal", signal.Signals(number).name))
        else:
            reason = "for want of memory?" if number == signal.SIGKILL else f"exit code {process.exitcode}"
            self.control.end(Ending("broken", f"A process of the pipeline is gone ({reason})."))

    def _see_to_the_end(self) -> None:
        ending = self.control.ending
        if ending is None or self._give_up is None or self._closed:
            return
        if self._given_up_at is None:
            self._given_up_at = time.monotonic()
            self._give_up(ending)
        elif time.monotonic() - self._given_up_at > _GRACE_S:
            for process in self._processes.values():
                process.kill()
            self._processes = {}


def _ended(processes: dict[int, Any], seconds: float) -> list[Any]:
    """Those of the processes that have ended, once one has or the time is over."""
    ready = set(wait(list(processes), seconds))
    return [process for sentinel, process in processes.items() if sentinel in ready]
