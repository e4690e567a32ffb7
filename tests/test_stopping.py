"""Signals to the real commands in the middle of their work: exit code 130, one line, nothing left half-written."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipelines.runs import RunFolder
from tests import commands

ROOT = Path(__file__).resolve().parents[1]
_S = 300
# A query that does not end by itself.
ENDLESS = (
    "SELECT CAST(count(*) AS VARCHAR) AS response_id, '' AS reason, '' AS value "
    "FROM range(100000000) a, range(100000000) b WHERE a.range * b.range % 7 = 9"
)


def cpu_seconds(process: int) -> float:
    """CPU time that a process and those it started have used."""
    found = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    used = 0.0
    for one in found:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            used += times.user + times.system
    return used


class Command:
    """A command under way, in a process group of its own."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.words = words
        self.output = cwd / "output.txt"
        with self.output.open("w") as output:
            self.process = commands.Command(words, cwd=cwd, stdout=output, stderr=subprocess.PIPE, process_group=0)

    def computing(self, seconds: float) -> None:
        """Wait until the process has used so much CPU time: a query is under way by then."""
        self.until(lambda: cpu_seconds(self.process.pid) > seconds)

    def until(self, event: Callable[[], bool]) -> None:
        """Wait for an event while the process runs."""
        for _ in range(int(2 * _S / 0.02)):
            assert self.process.poll() is None, self.process.communicate()
            if event():
                return
            time.sleep(0.02)
        pytest.fail("the command did not come so far")

    def stopped(self, number: signal.Signals, group: bool) -> str:
        """Send a signal and return the last line, having checked what holds for every stop."""
        # `timeout` sends its signal to the process, and then to the group with the process in it.
        os.kill(self.process.pid, number)
        if group:
            os.killpg(self.process.pid, number)
        _, errors = self.process.communicate(timeout=_S)
        assert self.process.returncode == 130, errors
        assert "Traceback" not in errors
        last = errors.splitlines()[-1]
        assert last.endswith(f"Go on with: {shlex.join(['saferthoughts', *self.words])}"), errors
        return last


@pytest.fixture
def started() -> Iterator[Callable[..., Command]]:
    """Start commands, and leave none behind."""
    commands: list[Command] = []

    def start(*words: str, cwd: Path) -> Command:
        commands.append(Command(*words, cwd=cwd))
        return commands[-1]

    yield start
    for command in commands:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.communicate()


def blocked_reader(path: Path) -> Callable[[], bool]:
    """Make a pipe of a file; the event is that somebody has opened it to read, and waits for what never comes."""
    path.unlink()
    os.mkfifo(path)
    held: list[int] = []

    def event() -> bool:
        try:
            held.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads yet
            return False
        return True

    return event


SIGNALS = [(signal.SIGINT, True), (signal.SIGTERM, True)]


@pytest.mark.parametrize(("number", "group"), SIGNALS)
def test_check_is_stopped_within_a_query(
    judged: RunFolder, tmp_path: Path, started: Callable[..., Command], number: signal.Signals, group: bool
) -> None:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "endless.sql").write_text(ENDLESS)
    command = started("--runs", str(judged.path.parent), "check", judged.name, "--checks", "checks", cwd=tmp_path)
    command.computing(2)
    command.stopped(number, group)
    assert not list(judged.path.glob(".*.tmp"))
    (tmp_path / "checks" / "endless.sql").unlink()
    (tmp_path / "checks" / "short.sql").write_text(f"{ENDLESS} LIMIT 0")
    again = started(*command.words, cwd=tmp_path)
    _, errors = again.process.communicate(timeout=2 * _S)
    assert again.process.returncode == 0, errors


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("duplicates", "{run}"), signal.SIGTERM),
        (("release", "build", "{run}"), signal.SIGHUP),
        (("sql", "{run}", "select 1"), signal.SIGINT),
    ],
)
def test_stages_are_stopped_while_they_wait_for_a_disk(
    judged: RunFolder, tmp_path: Path, started: Callable[..., Command], words: tuple[str, ...], number: signal.Signals
) -> None:
    event = blocked_reader(judged.path / "run.yaml")
    words = tuple(word.replace("{run}", judged.name) for word in words)
    command = started("--runs", str(judged.path.parent), *words, cwd=tmp_path)
    command.until(event)
    command.stopped(number, group=False)
    assert not list(judged.path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("words", "line", "number"),
    [
        (("serve", "--port", "0"), "Open once", signal.SIGHUP),
        (("rehearse", "--port", "0"), "http://", signal.SIGTERM),
    ],
)
def test_servers_are_stopped(
    tmp_path: Path, started: Callable[..., Command], words: tuple[str, ...], line: str, number: signal.Signals
) -> None:
    command = started(*words, cwd=tmp_path)
    command.until(lambda: line in command.output.read_text())
    assert command.stopped(number, group=True).startswith("saferthoughts: Stopped.")


# A stop between the start of the event loop and uvicorn's own handlers.
_STOPPED_WHILE_IT_BEGINS = """
import os, signal, sys, uvicorn
serve = uvicorn.Server.serve
async def stopped(self, *words, **settings):
    os.kill(os.getpid(), signal.SIGHUP)
    return await serve(self, *words, **settings)
uvicorn.Server.serve = stopped
from saferthoughts.cli.main import main
sys.argv[0] = "saferthoughts"
main()
"""


def test_a_service_that_is_stopped_while_it_begins_ends_with_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _STOPPED_WHILE_IT_BEGINS, "serve", "--port", "0"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=_S,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("SaferThoughts serves", "Open once"))]
    assert (done.returncode, line.startswith("saferthoughts: Stopped.")) == (130, True)


def test_a_query_ends_with_its_command_even_by_kill_9(
    judged: RunFolder, tmp_path: Path, started: Callable[..., Command]
) -> None:
    command = started("--runs", str(judged.path.parent), "sql", judged.name, ENDLESS, cwd=tmp_path)
    command.computing(2)
    (query,) = psutil.Process(command.process.pid).children(recursive=True)
    command.process.kill()
    command.process.communicate(timeout=_S)
    until = time.monotonic() + _S
    while not ended(query) and time.monotonic() < until:
        time.sleep(0.02)
    assert ended(query)


def ended(process: psutil.Process) -> bool:
    # Nobody may reap it where the machine's first process does not.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_release_build_leaves_nothing_once_it_is_called_again(
    judged: RunFolder, tmp_path: Path, started: Callable[..., Command]
) -> None:
    words = ("--runs", str(judged.path.parent), "release", "build", judged.name)
    assert started("--runs", str(judged.path.parent), "check", judged.name, cwd=tmp_path).process.wait(2 * _S) == 0
    command = started(*words, cwd=tmp_path)
    command.until(lambda: bool(list(judged.path.glob(".release.*.tmp"))))
    command.process.kill()
    command.process.communicate(timeout=_S)
    (left,) = judged.path.glob(".release.*.tmp")
    again = started(*words, cwd=tmp_path)
    again.until(lambda: not left.exists())
    assert not left.exists()


def test_c_code_that_ignores_signals_is_ended_by_force() -> None:
    code = (
        "import sqlite3\nfrom pipelines.interrupts import listen\nlisten(lambda: 'stopped')\nprint('now', flush=True)\n"
        "endless = 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c'\n"
        "sqlite3.connect(':memory:').execute(endless).fetchall()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        began = cpu_seconds(process.pid)
        while cpu_seconds(process.pid) < began + 0.3:  # the query is under way
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate(timeout=_S)
    assert (process.returncode, errors) == (130, "stopped\n")


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    code = (
        "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from pipelines.interrupts import listen\nlisten(lambda: 'stopped')\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
