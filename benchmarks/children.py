"""Running a contender in a process of its own, so that imports and memory of one never touch another."""

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parent.parent
_SAMPLE_EVERY_S = 0.2
_SHOWN = 2000


class ChildFailed(Exception):
    """A contender ended with an error or took too long; the message has the end of its output."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from start to exit; the highest sum of resident memory over the process and its children, in MB (10^6);
    CPU seconds, user and system, of the process and of those that it waited for.

    The sum counts a page as often as processes share it; `peak_rss_mb` is 0 where it was not asked for.
    """

    wall_s: float
    peak_rss_mb: float
    cpu_s: float


def measured(
    command: Sequence[str],
    folder: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    memory: bool = False,
    look: Callable[[psutil.Process], None] | None = None,
) -> Measured:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Where it may write; home of the caches of Hugging Face, too, so that nothing of the user's is touched.
        timeout_s: After this it is killed, with its children.
        env: Variables on top of this process's own.
        memory: Sample the memory; off while speed is measured, since looking costs time as well.
        look: Called with the process every few tenths of a second.

    Raises:
        ChildFailed: it did not exit with 0 in time.
    """
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), **(env or {})}
    peak = 0
    before = _waited_for()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=_ROOT, env=variables, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            if memory or look is not None:
                while process.poll() is None and time.monotonic() - started < timeout_s:
                    peak = max(peak, _resident(process.pid)) if memory else 0
                    if look is not None:
                        with suppress(psutil.NoSuchProcess):
                            look(psutil.Process(process.pid))
                    time.sleep(_SAMPLE_EVERY_S)
            code = process.wait(timeout=max(0.0, timeout_s - (time.monotonic() - started)))
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"no end after {timeout_s:g} s") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wall = time.monotonic() - started
        if code != 0:
            output.seek(0)
            raise ChildFailed(f"exit {code}: {output.read()[-_SHOWN:].strip()}")
    return Measured(wall, peak / 1e6, _waited_for() - before)


def _waited_for() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total
