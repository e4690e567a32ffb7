"""Inspect at work: the tasks of one model, quietly, resumable, everything it keeps in one folder.

Writes Inspect's logs into the folder it is given (`inspect view --log-dir FOLDER` shows them) and the buffer that a
killed run is recovered from into `.inspect` beside them.
"""

import fcntl
import gc
import os
import warnings
import zipfile
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import rich
from inspect_ai import Task, eval_set
from inspect_ai.agent._acp.transport import _acp_live_active
from inspect_ai.hooks import Hooks, RunEnd, SampleEnd, TaskStart, hooks
from inspect_ai.log import EvalLog, EvalSample, read_eval_log
from inspect_ai.model import Model

from eval.run.trouble import close_traces, refused_by_machine, watching
from pipelines.command_line import typed_command
from pipelines.errors import UserError
from pipelines.progress import console as progress

_HOME = "XDG_DATA_HOME"
# Called with a task's name and a sample of it that has just ended.
Finished = Callable[[str, EvalSample], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """The running evaluation: callbacks for finished and failed samples, and the models to close at the end."""

    finished: Finished
    failed: Callable[[str], None]
    models: Sequence[Model]
    tasks: dict[str, str] = field(default_factory=dict)


_run: _Run | None = None


@hooks(name="session", description="counts finished samples for the progress bar, closes connections")
class _Session(Hooks):
    """Hooks of Inspect's, which makes one instance and keeps it."""

    def enabled(self) -> bool:
        return _run is not None

    async def on_task_start(self, data: TaskStart) -> None:
        if _run is not None:
            _run.tasks[data.eval_id] = data.spec.task

    async def on_sample_end(self, data: SampleEnd) -> None:
        if _run is not None:
            _run.finished(_run.tasks.get(data.eval_id, ""), data.sample)
            if data.sample.error is not None:
                _run.failed(data.sample.error.message)

    async def on_run_end(self, data: RunEnd) -> None:
        # Here, since a connection can be closed only where it was opened: in Inspect's event loop.
        for model in _run.models if _run is not None else ():
            await model.api.aclose()


def ask(
    tasks: Sequence[Task],
    model: Model,
    roles: Sequence[Model],
    folder: Path,
    most: int,
    finished: Finished,
) -> list[EvalLog]:
    """Run the tasks at once, go on where their logs in `folder` stop, and read the logs in the order of the tasks.

    A log belongs to a task if name, version, model and roles are the same. Samples that failed are asked again at the
    next call; a log is then "error", with all that did not fail.

    Args:
        tasks: Of different names.
        roles: Whom the tasks ask beside it.
        folder: For logs of this model only.
        most: Samples of a task under way at once.
        finished: Called after each sample that was asked now.

    Raises:
        KeyboardInterrupt: Ctrl-C; what is finished is in the logs.
        UserError: the disk is full, a file may not grow or cannot be written; what is finished is in the logs.
    """
    global _run
    _set_aside_broken(folder)
    with watching() as watch:
        _run = _Run(finished, watch.sample_failed, [model, *roles])
        try:
            done = _evaluated(tasks, model, folder, most)
        except (CancelledError, KeyboardInterrupt) as cancelled:
            # How Inspect passes Ctrl-C on where it does not swallow it.
            _raise_refused(watch.found, folder)
            raise KeyboardInterrupt from cancelled
        except Exception as error:
            _raise_refused(watch.found or refused_by_machine(error), folder)
            raise
        finally:
            _run = None
        if len(done) < len(tasks) or any(log.status == "cancelled" for log in done):
            # Inspect swallows Ctrl-C: logs are missing or say "cancelled".
            _raise_refused(watch.found, folder)
            raise KeyboardInterrupt
    named = {log.eval.task: log for log in done}
    logs = [read_eval_log(named[task.name].location) for task in tasks]
    _remove_superseded(logs, folder)
    return logs


def _evaluated(tasks: Sequence[Task], model: Model, folder: Path, most: int) -> list[EvalLog]:
    with _unburdened():
        _, done = eval_set(
            list(tasks),
            model=model,
            log_dir=str(folder.resolve()),
            # One attempt: what failed is for the user to look at, and the same command asks it again.
            retry_attempts=1,
            retry_immediate=False,
            log_dir_allow_dirty=True,
            display="none",
            log_level="error",
            score_display=False,
            # No sockets.
            ctl_server=False,
            acp_server=False,
            # One failed sample should not cost the others' answers.
            fail_on_error=True,
            continue_on_fail=True,
            max_tasks=len(tasks),
            max_samples=most,
        )
    return done


@contextmanager
def _unburdened() -> Iterator[None]:
    """Spare the event loop what takes a second of it in 500 samples, while replies wait.

    Inspect opens a session for editors around every sample unless one is open already; the first reply in it waits for
    a table of every model's context size. And the collector walks all loaded modules each time.
    """
    session = _acp_live_active.set(True)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        # What the samples left, before all that is loaded is looked through again.
        gc.collect()
        gc.unfreeze()
        _acp_live_active.reset(session)


def _raise_refused(what: str, folder: Path) -> None:
    if what:
        raise UserError(
            f"The answers cannot be written into {folder} ({what}). Free some space, raise the limit or choose another "
            f"--output. What was answered is kept; go on with: {typed_command()}"
        )


def _set_aside_broken(folder: Path) -> None:
    """Rename a log that was torn, as by a machine that stopped: Inspect would end over it, at every call."""
    for path in sorted(folder.glob("*.eval")):
        if fault := _fault(path):
            aside = next(name for name in _names_aside(path) if not name.exists())
            path.rename(aside)
            message = f"{path.name} is torn ({fault}) and now called {aside.name}: its answers are asked for again."
            progress.print(message, markup=False, highlight=False, soft_wrap=True)


def _names_aside(path: Path) -> Iterator[Path]:
    yield path.with_suffix(".broken")
    for number in count(2):
        yield path.with_suffix(f".broken-{number}")


def _fault(path: Path) -> str:
    """What is wrong with a log, "" if all of it can be read. A good archive may hold broken bytes, or nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not archive.namelist():
                return "it holds nothing"
            if (member := archive.testzip()) is not None:
                return f"{member} has broken bytes"
        read_eval_log(path)
    except OSError as error:
        # What the system refuses is no fault of the log.
        if error.errno is not None:
            raise
        return _first_line(error)
    except Exception as error:  # noqa: BLE001 - whatever its bytes do to Inspect's reader
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:120] or type(error).__name__


def _remove_superseded(logs: Sequence[EvalLog], folder: Path) -> None:
    """Delete the logs of killed calls whose answers are in `logs`, and their buffers, which Inspect leaves behind."""
    kept = {Path(log.location).name for log in logs}
    tasks = {log.eval.task_id for log in logs}
    for path in folder.glob("*.eval"):
        if path.name not in kept and read_eval_log(path, header_only=True).eval.task_id in tasks:
            path.unlink()
            for buffer in Path(os.environ[_HOME]).rglob(f"{path.name}.*"):
                buffer.unlink()


@contextmanager
def inspecting(folder: Path) -> Iterator[None]:
    """Inspect, while the block runs: nothing of its own on the terminal, its traces and buffers in `folder`.

    They would go to the user's data folder otherwise. It must be the same `folder` when a killed evaluation is started
    again: what was answered may be in the buffers alone.

    Raises:
        UserError: another process is at work there; both would ask the same and each would remove the other's logs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = (folder / "lock").open("w")
    except OSError as error:
        _raise_refused(refused_by_machine(error) or str(error), folder.parent)
        raise
    with lock_file as lock:
        try:
            # Let go of by the kernel when the process is gone.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            where = folder.parent.parent
            raise UserError(f"Another evaluation writes into {where}. Wait for it, or give --output FOLDER.") from error
        with _at_home(folder):
            yield


@contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    before = os.environ.get(_HOME)
    os.environ[_HOME] = str(folder.resolve())
    os.environ.setdefault("INSPECT_TRACE_LEVEL", "CRITICAL")
    console = rich.get_console()
    loud, console.quiet = not console.quiet, True
    try:
        with warnings.catch_warnings():
            # Inspect hands tenacity an argument by its old name.
            warnings.filterwarnings("ignore", "The 'initial' parameter is deprecated", DeprecationWarning)
            # And leaves a stream a sample to the garbage collector, which complains when it runs (`_unburdened`).
            warnings.filterwarnings("ignore", "Unclosed <MemoryObject", ResourceWarning)
            yield
    finally:
        close_traces()
        console.quiet = not loud
        if before is None:
            os.environ.pop(_HOME)
        else:
            os.environ[_HOME] = before
