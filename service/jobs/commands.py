"""Answers of short-lived child processes: a command of ours with --json, bounded in time and in number.

What a release or a table of somebody else makes a library do, in time and memory, ends with the child. Reads what the
command prints; keeps the last answers in memory by what they were asked of.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.file_marks import KeptWhileUnchanged
from service.http.problems import Problem

_TIMEOUT_S = 300
_AT_ONCE = 2
# A request that finds no free place after this is to come again.
_WAIT_S = 60
_MOST_KEPT = 64
_LONGEST_LINE = 500

_free = threading.BoundedSemaphore(_AT_ONCE)
_kept: KeptWhileUnchanged[Any] = KeptWhileUnchanged(_MOST_KEPT)


def command_of(runs: Path, *words: str) -> list[str]:
    """A command of ours on a folder of runs, as a child process is started with it."""
    return [sys.executable, "-m", "saferthoughts", "--runs", str(runs), *words]


def last_line(errors: str) -> str:
    """What a command says on its last line, without the program's name; "" where it says nothing."""
    lines = errors.strip().splitlines()
    return lines[-1].removeprefix("saferthoughts: ") if lines else ""


def run(runs: Path, *words: str) -> str:
    """What `saferthoughts` prints on stdout.

    Raises:
        UserError: with the last line of its errors, where it ends with another exit code than 0 and prints nothing.
        Problem: 503, others are being waited for.
    """
    if not _free.acquire(timeout=_WAIT_S):
        raise Problem(503, "Others are being waited for. Come again in a minute.", {"retry-after": "60"})
    try:
        done = subprocess.run(command_of(runs, *words), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"saferthoughts {words[0]} took longer than {_TIMEOUT_S} s and was ended.") from error
    finally:
        _free.release()
    if done.returncode and not done.stdout.strip():
        raise UserError(one_line(last_line(done.stderr) or "it says nothing", _LONGEST_LINE))
    return done.stdout


def answer(runs: Path, mark: Callable[[], object], *words: str) -> Any:
    """The JSON that a command prints; the same is not asked again while `mark` is the same.

    Raises:
        UserError, Problem: as `run`.
    """
    return _kept.get(words, mark, lambda: json.loads(run(runs, *words, "--json")))
