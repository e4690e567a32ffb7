"""The queue: which jobs wait, are under way and are over. One open job a run at most; kept in SQLite.

A job is one call of `saferthoughts` on one run. Its state is queued, running, cancelling, and at the end done,
incomplete (exit code 1), failed or cancelled.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import visible
from service.http.problems import Problem
from service.store import Store

State = Literal["queued", "running", "cancelling", "done", "incomplete", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running", "cancelling")
# What a run itself is made by; every other action is beside it, and its failure is not the run's.
OWN = ("run", "resume")
Fault = Literal["", "run", "job", "service"]


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are seconds since 1970; `process` and `process_started` together name its process, since numbers
    of processes are used again. `attempts` counts how often it was started, `message` is its last word. `fault` says
    of a job that failed what did: "run", its command said so; "job", its process died; "service", it could not be
    started or watched."""

    id: int
    run: str
    action: str
    arguments: tuple[str, ...]
    asked_by: str
    state: State
    created: float
    started: float | None
    finished: float | None
    process: int | None
    process_started: float | None
    attempts: int
    exit_code: int | None
    message: str
    fault: Fault

    @property
    def open(self) -> bool:
        """Whether it waits or is under way."""
        return self.state in OPEN

    @property
    def side(self) -> bool:
        """Whether it is beside the run's own work."""
        return self.action not in OWN


def _job(row: dict[str, Any]) -> Job:
    return Job(**{**row, "arguments": tuple(json.loads(row["arguments"]))})


class Queue:
    """The jobs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, run: str, action: str, arguments: Sequence[str], asked_by: str) -> Job:
        """Let a job wait for its turn.

        Raises:
            Problem: 409, the run has a job that is not over.
        """
        try:
            self._store.change(
                "INSERT INTO jobs(run, action, arguments, asked_by, state, created) VALUES (?, ?, ?, ?, 'queued', ?)",
                *(run, action, json.dumps(list(arguments)), asked_by, time.time()),
            )
        except sqlite3.IntegrityError as error:
            there = self.latest(run)
            what = f"{there.action} is {there.state}" if there else "a job is under way"
            raise Problem(409, f"{run}: {what}. Wait for it, or cancel it first.") from error
        job = self.latest(run)
        assert job is not None
        return job

    def latest(self, run: str) -> Job | None:
        """The newest job of a run."""
        row = self._store.one("SELECT * FROM jobs WHERE run = ? ORDER BY id DESC LIMIT 1", run)
        return None if row is None else _job(row)

    def first_asker(self, run: str) -> str:
        """Who asked for a run's first job; "" where nobody asked for one here."""
        row = self._store.one("SELECT asked_by FROM jobs WHERE run = ? ORDER BY id LIMIT 1", run)
        return "" if row is None else str(row["asked_by"])

    def rename(self, run: str, to: str) -> None:
        """A run has another name: its jobs are those of that."""
        self._store.change("UPDATE jobs SET run = ? WHERE run = ?", to, run)

    def forget(self, run: str) -> None:
        """A run is no more: another one of its name has no jobs yet."""
        self._store.change("DELETE FROM jobs WHERE run = ?", run)

    def latest_of_each(self, run: str) -> list[Job]:
        """The newest job of every action of a run, the newest first."""
        query = "SELECT * FROM jobs WHERE id IN (SELECT max(id) FROM jobs WHERE run = ? GROUP BY action)"
        return [_job(row) for row in self._store.all(f"{query} ORDER BY id DESC", run)]

    def budgets(self) -> dict[str, float]:
        """US dollars that each run may spend, by its last job of its own, where that was said."""
        query = (
            "SELECT run, arguments FROM jobs WHERE id IN (SELECT max(id) FROM jobs WHERE action IN (?, ?) GROUP BY run)"
        )
        found = {row["run"]: json.loads(row["arguments"]) for row in self._store.all(query, *OWN)}
        given = {run: words[words.index("--max-cost") + 1] for run, words in found.items() if "--max-cost" in words}
        return {run: float(most) for run, most in given.items()}

    def job(self, run: str, number: int) -> Job | None:
        """A job of a run by its number."""
        row = self._store.one("SELECT * FROM jobs WHERE run = ? AND id = ?", run, number)
        return None if row is None else _job(row)

    def done(self, run: str, action: str) -> list[Job]:
        """The jobs of a run that did an action to its end, the newest first."""
        query = "SELECT * FROM jobs WHERE run = ? AND action = ? AND state = 'done' ORDER BY id DESC"
        return [_job(row) for row in self._store.all(query, run, action)]

    def in_state(self, *states: State) -> list[Job]:
        """Every job in one of these states, the oldest first."""
        marks = ", ".join("?" * len(states))
        rows = self._store.all(f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY id", *states)  # noqa: S608
        return [_job(row) for row in rows]

    def place(self, job: Job) -> int:
        """How many jobs wait before this one."""
        row = self._store.one("SELECT count(*) AS n FROM jobs WHERE state = 'queued' AND id < ?", job.id)
        return int(row["n"]) if row else 0

    def begin(self, job: Job) -> bool:
        """Mark a waiting job as running, its process not yet known; False where it was cancelled meanwhile."""
        return bool(
            self._store.change(
                "UPDATE jobs SET state = 'running', started = coalesce(started, ?), attempts = attempts + 1, "
                "process = NULL, process_started = NULL WHERE id = ? AND state = 'queued'",
                *(time.time(), job.id),
            )
        )

    def note_process(self, job: Job, process: int, started: float) -> None:
        """Remember which process does a job."""
        query = "UPDATE jobs SET process = ?, process_started = ? WHERE id = ?"
        self._store.change(query, process, started, job.id)

    def put_back(self, job: Job) -> None:
        """Let a job that died wait for its turn again."""
        self._store.change(
            "UPDATE jobs SET state = 'queued', process = NULL WHERE id = ? AND state = 'running'", job.id
        )

    def cancel(self, job: Job) -> None:
        """A waiting job is over at once; one that is running is to be stopped."""
        with self._store.whole():
            self._store.change(
                "UPDATE jobs SET state = 'cancelled', finished = ?, message = 'Cancelled before it began.' "
                "WHERE id = ? AND state = 'queued'",
                *(time.time(), job.id),
            )
            self._store.change("UPDATE jobs SET state = 'cancelling' WHERE id = ? AND state = 'running'", job.id)

    def end(self, job: Job, state: State, exit_code: int | None, message: str, fault: Fault = "") -> None:
        """A job is over."""
        self._store.change(
            "UPDATE jobs SET state = ?, exit_code = ?, message = ?, fault = ?, finished = ?, process = NULL "
            "WHERE id = ?",
            *(state, exit_code, visible(message), fault, time.time(), job.id),
        )
