"""Jobs as child processes of `saferthoughts`, which outlive the service and are found again by it.

Each is a process group of its own, writes service.log and .progress.json into its run's folder, and is known by number
and start time. A service that starts takes over those that still run; one that died is started again, which costs
nothing twice: what was answered is in the run's ledger.
"""

import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.progress import FILE_VARIABLE
from pipelines.runs import RunFolder
from pipelines.system_errors import system_line
from service.jobs.commands import command_of
from service.jobs.queue import Job, Queue

LOG_FILE, PROGRESS_FILE = "service.log", ".progress.json"
# Deaths by a signal, or with the service, after which a job is given up.
MOST_ATTEMPTS = 5
_LOOK_EVERY_S = 0.25
# From the first signal to the last: time for what is in flight to come back.
_GRACE_S = 30.0
_LOG_TAIL = 64 * 1024
# The stage of a run's manifest that an action ends with; others leave no entry there and are simply done again.
_LAST_STAGE = {
    "run": "release",
    "resume": "release",
    "release": "release",
    "review": "review",
    "votes": "pull",
    "apply": "check",
    "eval": "eval",
}


@dataclass(slots=True)
class _Child:
    """A job's process: `own` where this service started it, and so will learn its exit code."""

    process: psutil.Process
    own: subprocess.Popen[bytes] | None
    interrupted_at: float | None = None

    def ended(self) -> bool:
        """Whether the process has exited; a zombie has."""
        if self.own is not None:
            return self.own.poll() is not None
        try:
            return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


class Supervisor:
    """Starts, watches and stops the jobs of one queue; at most `most` at once, and none at all with 0. Jobs get
    `environment`, and on top of it what `keys` has when they begin."""

    def __init__(
        self,
        runs: Path,
        queue: Queue,
        most: int,
        environment: Mapping[str, str],
        keys: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._runs, self._queue, self._most = runs.absolute(), queue, most
        self._environment, self._keys = dict(environment), keys
        self._children: dict[int, _Child] = {}
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Take over what an earlier service left, and begin to work."""
        for job in self._queue.in_state("running", "cancelling"):
            process = self._left_behind(job)
            if process is not None:
                self._children[job.id] = _Child(process, None)
                self._queue.note_process(job, process.pid, process.create_time())
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the jobs go on."""
        self._ended.set()
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Start the next round now instead of after the pause."""
        self._wake.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self._round()
            except Exception:  # noqa: BLE001 - one bad round must not leave the jobs without anybody who watches them
                traceback.print_exc()
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()

    def _round(self) -> None:
        for job in self._queue.in_state("running", "cancelling"):
            try:
                self._look_at(job)
            except Exception:  # noqa: BLE001 - one job that cannot be settled must not hold the others up
                traceback.print_exc()
                self._children.pop(job.id, None)
                message = "The service could not tell what came of it; its own log says why."
                self._queue.end(job, "failed", None, message, "service")
        free = self._most - len(self._children)
        for job in self._queue.in_state("queued")[: max(free, 0)]:
            if self._queue.begin(job):
                self._begin(job)

    def _look_at(self, job: Job) -> None:
        child = self._children.get(job.id)
        if child is None or child.ended():
            self._settle(job, self._children.pop(job.id, None))
        elif job.state == "cancelling":
            self._request_stop(child)

    def _begin(self, job: Job) -> None:
        folder = self._runs / job.run
        command = command_of(self._runs, *job.arguments)
        own = {FILE_VARIABLE: str(folder / PROGRESS_FILE), "PYTHONUNBUFFERED": "1"}
        environment = {**self._environment, **self._keys(), **own}
        try:
            (folder / PROGRESS_FILE).unlink(missing_ok=True)
            with (folder / LOG_FILE).open("ab") as log:
                again = "" if job.attempts == 0 else f", attempt {job.attempts + 1}"
                log.write(f"-- saferthoughts {' '.join(job.arguments)} (job {job.id}{again})\n".encode())
                log.flush()
                started = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            message = f"It could not be started: {system_line(error) or error}"
            self._queue.end(job, "failed", None, message, "service")
            return
        process = psutil.Process(started.pid)
        self._children[job.id] = _Child(process, started)
        self._queue.note_process(job, started.pid, process.create_time())

    def _settle(self, job: Job, child: _Child | None) -> None:
        """Record the outcome of an exited job."""
        code = child.own.returncode if child is not None and child.own is not None else None
        message = last_words(self._runs / job.run)
        if job.state == "cancelling":
            self._queue.end(job, "cancelled", code, message or "Cancelled.")
        elif code == 0 or (code is None and self._finished(job)):
            self._queue.end(job, "done", code, message)
        elif code is not None and code > 0:
            state = {1: "incomplete", 130: "cancelled"}.get(code, "failed")
            self._queue.end(job, state, code, message, "run")  # type: ignore[arg-type]
        elif job.attempts < MOST_ATTEMPTS:
            self._queue.put_back(job)
        else:
            cause = f"by signal {-code}" if code else "with the service"
            self._queue.end(job, "failed", code, f"It died {job.attempts} times, the last time {cause}.", "job")

    def _finished(self, job: Job) -> bool:
        """Whether the run's manifest says that the job's last stage ended after the job began."""
        stage = _LAST_STAGE.get(job.action)
        path = self._runs / job.run / "manifest.json"
        if stage is None or not path.exists() or job.process_started is None:
            return False
        entry = RunFolder(self._runs / job.run).stage(stage)
        return entry is not None and _seconds(entry["finished"]) >= job.process_started - 1

    def _request_stop(self, child: _Child) -> None:
        """Ask a job to stop as Ctrl-C does; after a time of grace its whole group is killed."""
        now = time.monotonic()
        try:
            if child.interrupted_at is None:
                child.interrupted_at = now
                child.process.send_signal(signal.SIGINT)
            elif now - child.interrupted_at > _GRACE_S:
                os.killpg(child.process.pid, signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass  # it ended by itself

    def _left_behind(self, job: Job) -> psutil.Process | None:
        """The process of a job that an earlier service started, where it still runs."""
        if job.process is not None:
            try:
                process = psutil.Process(job.process)
                same = job.process_started is not None and abs(process.create_time() - job.process_started) < 1
                return process if same and process.status() != psutil.STATUS_ZOMBIE else None
            except psutil.NoSuchProcess:
                return None
        # Killed between starting it and noting so: its environment names the run's progress file.
        wanted = str(self._runs / job.run / PROGRESS_FILE)
        for process in psutil.process_iter():
            try:
                leads = os.getsid(process.pid) == process.pid
                if leads and process.environ().get(FILE_VARIABLE) == wanted:
                    return process
            except (psutil.Error, OSError):
                continue
        return None


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def log_tail(folder: Path) -> str:
    """The end of a run's log, "" where it has none."""
    path = folder / LOG_FILE
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _LOG_TAIL, 0))
        return file.read().decode("utf-8", "replace")


def printed_by(folder: Path, job: Job) -> str:
    """What a job printed at its last attempt, as far as the end of the log has it."""
    found = log_tail(folder).rpartition(f"(job {job.id}{'' if job.attempts < 2 else f', attempt {job.attempts}'})\n")
    return found[2].partition("\n-- saferthoughts ")[0].strip() if found[1] else ""


def last_words(folder: Path) -> str:
    """The last line of a job's log, without the command's prefix of errors."""
    lines = [line.strip() for line in log_tail(folder).splitlines() if line.strip()]
    return "" if not lines or lines[-1].startswith("-- ") else lines[-1].removeprefix("saferthoughts: ")


def cli_arguments(command: str, run: str, **flags: object) -> tuple[str, ...]:
    """A command's arguments for a run: flags that are None or False are omitted, those that are True take no value."""
    arguments = [*command.split(), run]
    for name, value in flags.items():
        if value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        arguments += [option] if value is True else [option, str(value)]
    return tuple(arguments)
