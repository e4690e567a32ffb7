"""A run's state in one value, from its manifest, ledger, progress file and newest job.

Reads only; the ledger is summed again when its files have changed. A `Broadcaster` looks once for all who listen.
"""

import asyncio
import json
import os
import re
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import ValidationError

from pipelines.errors import one_line, refusal_of
from pipelines.file_marks import KeptWhileUnchanged, mark_of
from pipelines.runs import RUN_NAME, RunFolder
from pipelines.settings.config import load_config
from pipelines.teachers.ledger import Ledger, Totals
from saferthoughts.status import funnel_of, waits_for_review
from service.http.problems import Problem
from service.http.shapes import Budget, ErrorLine, JobState, Progress, RunState, Step
from service.jobs.jobs import PROGRESS_FILE
from service.jobs.queue import OPEN, Job, Queue

_NOTHING = Totals(0, 0, 0, 0, 0.0)
# The bar that a stage fills.
_BAR_OF = {"generate": "responses", "judge": "judged, repairs too", "release": "released"}
_OVER = {"incomplete": "incomplete", "failed": "failed", "cancelled": "stopped"}
# Letters of the line that says why a run is broken.
_LONGEST_REASON = 500
_MOST_ERRORS = 5
# Letters of a manifest within which the moment of its creation stands, and it.
_BEGINS, _CREATED = 300, re.compile(r'^\{\s*"format": \d+,\s*"name": "[^"]*",\s*"id": "[^"]*",\s*"created": "([^"]*)"')
_LOOK_EVERY_S = 0.5
_KEEP_ALIVE_S = 15.0
# A listener comes again after this, and so has its token looked at again.
_LONGEST_S = 3600.0
_MOST_LISTENERS = 1000


class RunReader:
    """Reads runs' states; unchanged files are not read again."""

    def __init__(self, runs: Path, queue: Queue) -> None:
        self._runs, self._queue = runs, queue
        self._kept: KeptWhileUnchanged[Any] = KeptWhileUnchanged()
        self._begun: dict[str, tuple[object, float]] = {}
        self._seen: object = None
        self._looking = Lock()
        self._reported: set[tuple[str, str]] = set()

    def names(self, part: str = "") -> list[str]:
        """Every run whose name holds a text, in any letters, the newest first; of those that are there no more nothing
        is kept."""
        if not self._runs.is_dir():
            return []
        # Thousands of runs are looked at once for all who ask within a moment.
        with self._looking:
            mark = mark_of(self._runs), time.monotonic() // _LOOK_EVERY_S
            if mark != self._seen:
                self._look_for_runs()
                self._seen = mark
        begun = self._begun
        fit = (name for name in begun if part.lower() in name.lower())
        return sorted(fit, key=lambda name: (-begun[name][1], name))

    def _look_for_runs(self) -> None:
        begun: dict[str, tuple[object, float]] = {}
        for name in os.listdir(self._runs):
            manifest = f"{self._runs}/{name}/manifest.json"
            if RUN_NAME.fullmatch(name) and os.path.lexists(manifest):
                mark = mark_of(manifest)
                before = self._begun.get(name)
                begun[name] = before if before and before[0] == mark else (mark, _begun(Path(manifest)))
        gone = {str(self._runs / name) for name in self._begun.keys() - begun.keys()}
        if gone:
            self._kept.forget(lambda key: key[0] in gone)
        self._begun = begun

    def look(self, name: str) -> RunState:
        """The state of a run by its name; a run with broken files is shown as broken, with the reason.

        Raises:
            UserError: there is no such run.
        """
        try:
            # Read anew only where it has changed, which `open` does each time.
            return self.at(
                RunFolder(self._runs / name) if is_run(self._runs, name) else RunFolder.open(self._runs, name)
            )
        except Exception as error:
            if not is_run(self._runs, name):
                raise
            message = refusal_of(error)
            if message is None and (name, repr(error)) not in self._reported:
                self._reported.add((name, repr(error)))
                traceback.print_exc()
            reason = message or f"Its files cannot be read ({type(error).__name__}: {error})."
            return _broken(name, one_line(reason, _LONGEST_REASON), self._queue.latest(name), self._shape)

    def at(self, run: RunFolder) -> RunState:
        """A run's state now. Raises what its broken files raise; `look` does not."""
        # Before the files: those of a job that is over have its last words in them.
        jobs = self._queue.latest_of_each(run.name)
        manifest = self._unless_changed(run, "manifest.json", lambda: _of_manifest(run))
        config = self._unless_changed(run, "run.yaml", lambda: _of_config(run))
        totals, errors = self._totals(run)
        job = jobs[0] if jobs else None
        own = next((each for each in jobs if not each.side), None)
        stages: dict[str, Any] = manifest["stages"]
        version = self._version(run)
        waits = self._waits(run, stages)
        moved_on = _moved_on(own, stages)
        state = _state(jobs, own, version, waits, moved_on)
        problem = ""
        if state == "review":
            problem = waits
        elif own is not None and state in _OVER.values() and not moved_on:
            problem = own.message
        progress = _progress(run) if job is not None and job.state in ("running", "cancelling") else None
        return RunState(
            name=run.name,
            state=state,  # type: ignore[arg-type]
            problem=problem,
            created=manifest["created"],
            started_by=self._queue.first_asker(run.name),
            stage=progress.stage if progress else (next(reversed(stages)) if stages else ""),
            progress=progress,
            funnel=_live(manifest["funnel"], progress),
            stages=stages,
            variants=config["variants"],
            teachers=config["teachers"],
            rehearsal=config["rehearsal"],
            answers=totals.answers,
            failures=totals.failures,
            errors=errors,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            budget=_budget(own),
            cost=totals.cost if totals.cost or config["priced"] else None,
            version=version,
            job=None if job is None else self._shape(job),
            side_jobs=[self._shape(each) for each in jobs if each.side and not each.open],
        )

    def _unless_changed(self, run: RunFolder, file: str, read: Callable[[], Any], *others: str) -> Any:
        """What was read of a file of a run, while it and others are as they were."""
        read_of = [run.path / name for name in (file, *others)]
        return self._kept.get((str(run.path), file), lambda: mark_of(*read_of), read)

    def _totals(self, run: RunFolder) -> tuple[Totals, list[ErrorLine]]:
        path = run.path / "ledger.sqlite"
        if not path.exists():
            return _NOTHING, []

        def read() -> tuple[Totals, list[ErrorLine]]:
            with Ledger.reading(path) as ledger:
                found = ledger.failures()[:_MOST_ERRORS]
                lines = [ErrorLine(text=one_line(text, _LONGEST_REASON), count=count) for text, count in found]
                return ledger.totals(), lines

        found: tuple[Totals, list[ErrorLine]] = self._unless_changed(run, path.name, read, f"{path.name}-wal")
        return found

    def _version(self, run: RunFolder) -> str | None:
        path = run.path / "release" / "lineage.json"
        if not path.exists():
            return None

        def read() -> str:
            return str(json.loads(path.read_text(encoding="utf-8"))["version"])

        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(self._unless_changed(run, "release/lineage.json", read))
        return None

    def _waits(self, run: RunFolder, stages: dict[str, Any]) -> str:
        """What the release lacks of people's review, in a line, where nothing else is missing."""
        files = [run.path / name for name in ("manifest.json", "run.yaml", "agreement.json")]
        # The manifest may have changed since `stages` was read of it.
        return str(
            self._kept.get(
                (str(run.path), "waits"),
                lambda: (tuple(stages.items()), mark_of(*files, run.table_path("reviews"))),
                lambda: "; ".join(waits_for_review(run, stages)),
            )
        )

    def job_state(self, job: Job) -> JobState:
        """A job as it is shown."""
        return self._shape(job)

    def _shape(self, job: Job) -> JobState:
        return JobState(
            **{name: getattr(job, name) for name in JobState.model_fields if name != "waiting_before"},
            waiting_before=self._queue.place(job) if job.state == "queued" else None,
        )


def _of_manifest(run: RunFolder) -> dict[str, Any]:
    """What a state has of the manifest, which itself may be long."""
    manifest = run.manifest()
    stages = manifest["stages"]
    funnel = [Step(name=one.name, count=one.count, of=one.of) for one in funnel_of(stages)]
    finished = {name: entry["finished"] for name, entry in stages.items()}
    return {"created": manifest["created"], "stages": finished, "funnel": funnel}


def _of_config(run: RunFolder) -> dict[str, Any]:
    """What a state has of the configuration."""
    config = load_config(run)
    entries = (*config.teachers.values(), *config.judge_teachers.values())
    return {
        "variants": list(config.variants),
        "teachers": [f"{name} ({entry.model})" for name, entry in config.teachers.items()],
        "rehearsal": any(entry.embedded for entry in entries),
        "priced": any(entry.price for entry in entries),
    }


def is_run(runs: Path, name: str) -> bool:
    """Whether there is a run of this name, in whatever state; a name that no folder can have is none."""
    return RUN_NAME.fullmatch(name) is not None and os.path.lexists(runs / name / "manifest.json")


def _broken(name: str, reason: str, job: Job | None, shape: Callable[[Job], JobState]) -> RunState:
    """What is shown of a run whose files cannot be read."""
    return RunState(
        name=name, state="broken", problem=reason, created="", started_by="", stage="", progress=None, funnel=[],
        stages={}, variants=[], teachers=[], rehearsal=False, answers=0, failures=0, errors=[], input_tokens=0,
        output_tokens=0, cost=None, budget=Budget(), version=None, job=None if job is None else shape(job),
        side_jobs=[],
    )  # fmt: skip


def _budget(own: Job | None) -> Budget:
    """What the last job that made the run itself was allowed to take, by its options."""
    words = own.arguments if own is not None else ()
    given = {name: words[words.index(f"--{name}") + 1] for name in ("max-cost", "max-tokens") if f"--{name}" in words}
    return Budget.model_validate({name.replace("-", "_"): value for name, value in given.items()})


def _begun(path: Path) -> float:
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        with path.open(encoding="utf-8") as file:
            begins = file.read(_BEGINS)
            found = _CREATED.search(begins)
            created = found[1] if found else json.loads(begins + file.read())["created"]
        return datetime.fromisoformat(created).timestamp()
    return 0.0


def _progress(run: RunFolder) -> Progress | None:
    with suppress(OSError, ValueError, ValidationError, RecursionError):
        return Progress.model_validate(json.loads((run.path / PROGRESS_FILE).read_text(encoding="utf-8")))
    return None


def _moved_on(own: Job | None, stages: Mapping[str, str]) -> bool:
    """Whether a run was checked or selected from anew after its own last job, as applied votes have it."""
    if own is None or own.finished is None:
        return False
    ends = [datetime.fromisoformat(stages[name]).timestamp() for name in ("check", "select") if name in stages]
    return any(end > own.finished for end in ends)


def _state(jobs: Sequence[Job], own: Job | None, version: str | None, waits: str, moved_on: bool) -> str:
    """By the job under way, else by the run's own last one: what is beside it failed for itself.

    Args:
        jobs: The last job of each action, the newest first.
        own: The last one that made the run itself.
        version: Of the release, where there is one.
        waits: What the release lacks of people's review.
        moved_on: Whether what that last one ended with is past.
    """
    if jobs and jobs[0].open:
        return jobs[0].state
    if waits and not version:
        return "review"
    released = version and any(each.action == "release" and each.state == "done" for each in jobs)
    if own is not None and own.state in _OVER and not released and not moved_on:
        # A process that died, or was never started, says nothing about the run.
        return "stopped" if own.fault in ("job", "service") else _OVER[own.state]
    return "released" if version else ("new" if own is None else "stopped")


def _live(funnel: list[Step], progress: Progress | None) -> list[Step]:
    """The funnel with the bar of a stage that works for the first time."""
    name = _BAR_OF.get(progress.stage) if progress else None
    return [
        Step(name=step.name, count=progress.done, of=progress.total)
        if progress and step.name == name and step.count is None
        else step
        for step in funnel
    ]


class Broadcaster:
    """Sends runs' changes to listeners: one read of a run each half second, however many listen to it."""

    def __init__(self, look: Callable[[str], RunState]) -> None:
        self._look = look
        # By run, what each listener has last.
        self._listeners: dict[str, dict[asyncio.Queue[RunState], RunState]] = {}

    @property
    def listening(self) -> int:
        """The number of listeners."""
        return sum(len(queues) for queues in self._listeners.values())

    async def work(self) -> None:
        """Look at every run that has listeners, again and again, until cancelled."""
        while True:
            for name in list(self._listeners):
                await self._publish(name)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _publish(self, name: str) -> None:
        try:
            state = await asyncio.to_thread(self._look, name)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, others have listeners too
            # Being written, or moved away: the next look may find it.
            if refusal_of(error) is None and not isinstance(error, Problem):
                traceback.print_exc()
            return
        listeners = self._listeners.get(name, {})
        compared, changed = None, False
        for queue, last in listeners.items():
            # Most have the same one from the look before, which is compared once.
            if last is not compared:
                compared, changed = last, state != last
            listeners[queue] = state
            if changed:
                if queue.full():
                    queue.get_nowait()  # a slow listener gets the newest state only
                queue.put_nowait(state)

    async def events(self, name: str, first: RunState) -> AsyncIterator[str]:
        """A run's states as server-sent events: `state` for every change, `step` where a screen reader should speak.

        `first` is where the run stood when the listener came.
        """
        queue: asyncio.Queue[RunState] = asyncio.Queue(1)
        self._listeners.setdefault(name, {})[queue] = first
        until = time.monotonic() + _LONGEST_S
        try:
            yield "retry: 2000\n\n" + _event("state", first)
            last_spoken = spoken(first)
            while time.monotonic() < until:
                try:
                    state = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                yield _event("state", state)
                if spoken(state) != last_spoken:
                    last_spoken = spoken(state)
                    yield _event("step", state)
        finally:
            listeners = self._listeners.get(name, {})
            listeners.pop(queue, None)
            if not listeners:
                self._listeners.pop(name, None)

    def check_room(self) -> None:
        """Refuse a further listener where there are too many.

        Raises:
            Problem: 503, too many do.
        """
        if self.listening >= _MOST_LISTENERS:
            raise Problem(503, f"{_MOST_LISTENERS} listen already. Ask for the run now and then instead.")


def _event(kind: str, state: RunState) -> str:
    return f"event: {kind}\ndata: {state.model_dump_json()}\n\n"


def spoken(state: RunState) -> str:
    """A run's state in a few words that change seldom: its stage, and the tenth of it that is done."""
    words = state.state_words
    if state.progress is not None:
        tenths = f", {10 * (10 * state.progress.done // state.progress.total)} %" if state.progress.total else ""
        words = f"{state.progress.stage}{tenths}"
    elif state.problem:
        words = f"{state.state_words}. {state.problem}"
    elif state.job is not None and state.job.state not in OPEN and state.job.message:
        words = f"{state.state_words}. {state.job.message}"
    return words
