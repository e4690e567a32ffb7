"""A run of the service removed, renamed, exported, imported, by `pipelines/run_archives.py`; its jobs go with it."""

from collections.abc import Callable, Iterator
from typing import IO

from pipelines import run_archives
from pipelines.errors import UserError
from pipelines.run_archives import Holding, holdings
from pipelines.runs import RUN_NAME, RunFolder
from service.app_state import AppState
from service.http.problems import Problem
from service.run.run_reader import is_run


def _idle_run(state: AppState, name: str) -> RunFolder:
    """A run, broken ones too, that no job is waiting for or at work on.

    Raises:
        Problem: 404, there is none; 409, it has a job that is not over.
    """
    if not is_run(state.runs, name):
        return state.run(name)
    job = state.queue.latest(name)
    if job is not None and job.open:
        raise Problem(409, f"{name}: {job.action} is {job.state}. Wait for it, or cancel it first.")
    return RunFolder(state.runs / name)


def contents(state: AppState, name: str) -> list[Holding]:
    """What a run's folder holds.

    Raises:
        Problem: 404, there is no such run.
    """
    return holdings(RunFolder(state.runs / name) if is_run(state.runs, name) else state.run(name))


def remove(state: AppState, name: str, confirm: str) -> None:
    """Delete a run, where its name was typed.

    Raises:
        Problem: 404; 409, a job or a process is at work on it; 422, another name was typed.
    """
    run = _idle_run(state, name)
    if confirm != name:
        raise Problem(422, f"To delete {name}, type its name; '{confirm[:64]}' is another one. Nothing was deleted.")
    with state.starting:
        _unless_at_work(lambda: run_archives.remove(run))
        state.queue.forget(name)
        state.rows.forget(state.runs, name)


def rename(state: AppState, name: str, to: str) -> None:
    """Give a run another name; its jobs go with it.

    Raises:
        Problem: 404; 409, a job or a process is at work on it, or the name is taken.
        UserError: the name is none.
    """
    run = _idle_run(state, name)
    if RUN_NAME.fullmatch(to) and (state.runs / to).exists():
        raise Problem(409, f"There is a run '{to}' under {state.runs.name}/ already. Choose another name.")
    with state.starting:
        _unless_at_work(lambda: run_archives.rename(run, to))
        state.queue.rename(name, to)
        state.rows.forget(state.runs, name)


def _unless_at_work(act: Callable[[], object]) -> None:
    try:
        act()
    except UserError as error:
        raise Problem(409, str(error)) from error


def export(state: AppState, name: str) -> Iterator[bytes]:
    """A run's archive, piece by piece.

    Raises:
        Problem: 404; 409, a job or a process is at work on it.
    """
    state.run(name)
    run = _idle_run(state, name)
    pieces: list[Iterator[bytes]] = []
    _unless_at_work(lambda: pieces.append(run_archives.exported(run)))
    return pieces[0]


def take_in(state: AppState, archive: IO[bytes], name: str | None) -> str:
    """Make a run of an archive; its name. It may ask nobody whom this service does not know.

    Raises:
        Problem: 409, there is a run of that name.
        UserError: this is no archive of a sound run.
    """

    def refuse(asks: str) -> None:
        raise UserError(f"{asks} The service takes no such run. Look at it, and import it by the command line.")

    if name and (state.runs / name).exists():
        raise Problem(409, f"There is a run '{name}' under {state.runs.name}/ already. Give the new one another name.")
    with state.starting:
        return run_archives.imported(state.runs, archive, name or None, state.known_teachers(), refuse).name
