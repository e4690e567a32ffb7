"""Keeps a server's process group: it ends when told to, when its server ends, and when whoever started it is gone.

Run as a file by whoever begins a command with `kept`, from the standard library alone: `python -I server_process.py
STARTER_PID GRACE_SECONDS COMMAND...`. SIGINT, SIGTERM and SIGHUP are passed on to the whole group; what is left of it
after the grace is killed. Exits as the server did, with 128 + signal where one ended it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1

_asked_by: list[int] = []


def _follow_keeper() -> None:
    """Runs in the server before it is executed: it is told to end when the keeper itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
        os.killpg(group, number)


def keep(starter: int, grace_s: float, command: list[str]) -> int:
    """Run `command` in a process group of its own until it ends; its exit code."""
    for number in _PASSED_ON:
        signal.signal(number, lambda signalled, _: _asked_by.append(signalled))
    # This process has one thread, so that running code between fork and exec is safe.
    server = subprocess.Popen(command, start_new_session=True, preexec_fn=_follow_keeper)
    kill_at: float | None = None
    while server.poll() is None:
        if kill_at is None and os.getppid() != starter:
            _asked_by.append(signal.SIGTERM)
        while _asked_by:
            _signal_group(server.pid, _asked_by.pop())
            kill_at = kill_at or time.monotonic() + grace_s
        if kill_at is not None and time.monotonic() > kill_at:
            _signal_group(server.pid, signal.SIGKILL)
        time.sleep(_LOOK_EVERY_S)
    # A server that died leaves its workers, and with them the GPU's memory.
    _signal_group(server.pid, signal.SIGKILL)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def kept(grace_s: float) -> list[str]:
    """What to begin a command with, so that it is kept for this process."""
    return [sys.executable, "-I", os.path.abspath(__file__), str(os.getpid()), str(grace_s)]


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
