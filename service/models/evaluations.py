"""Evaluations of students and teachers: what a request may name, its command line, and how one is.

runs/RUN/eval is the one that the command line makes, runs/RUN/evaluations/NAME are further ones. A teacher's are beside
the runs, under its own name. `evaluation_results.py` reads what they found.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from eval.protocols import names as protocol_names
from eval.report.paper_results import study
from eval.run.live import live_rates
from eval.run.results import NAME
from eval.suites import SUITES, TASKS, chosen_tasks
from pipelines.errors import UserError, one_line, unknown
from pipelines.runs import RUN_NAME
from pipelines.settings.judge import load_judges
from service.app_state import AppState
from service.http.problems import Problem
from service.http.tokens import Caller
from service.jobs.queue import Job
from service.models import students
from service.models.evaluation_results import live_rate, rates_of, results_of
from service.models.model_shapes import EvaluationChoices, EvaluationState, EvaluationWanted
from service.models.training import last_job, output_of
from service.releases import releases

ACTION, OWN, RULES = "eval", "eval", "rules"
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def choices(state: AppState) -> EvaluationChoices:
    """What an evaluation may name."""
    teachers = list(state.known_teachers())
    guards = [name for name, judge in load_judges().items() if judge.kind == "safety"]
    rows: dict[str, list[str]] = {}
    for row in study():
        rows.setdefault(row.model, []).append(row.method)
    return EvaluationChoices(
        suites={name: list(tasks) for name, tasks in SUITES.items()},
        tasks=list(TASKS),
        protocols=protocol_names(),
        guards=[RULES, *guards, *teachers],
        teachers=teachers,
        study=rows,
    )


def place_of(state: AppState, name: str, evaluation: str) -> Path:
    """Where an evaluation of that name is, or goes."""
    folder = state.runs / name
    return folder / OWN if evaluation == OWN else folder / "evaluations" / evaluation


def folders(state: AppState) -> Iterator[tuple[str, str, Path]]:
    """Folder's name, evaluation's name and place of all that have begun, the newest results first."""
    found = [
        (path.parents[depth].name, path.name, path)
        for pattern, depth in ((f"*/{OWN}", 0), ("*/evaluations/*", 1))
        for path in state.runs.glob(pattern)
        if not path.is_symlink() and not path.parent.is_symlink() and path.is_dir()
    ]
    fitting = [one for one in found if RUN_NAME.fullmatch(one[0]) and RUN_NAME.fullmatch(one[1])]
    return iter(sorted(fitting, key=lambda one: (-(_at(one[2]) or 0), one[:2])))


def folder_of(state: AppState, name: str, evaluation: str) -> Path:
    """An evaluation's folder.

    Raises:
        Problem: 404, there is none of that name.
    """
    for run, own, place in folders(state):
        if (run, own) == (name, evaluation):
            return place
    job = last_job(state, name, ACTION)
    if job is not None and (place := output_of(job) or Path()).name == evaluation:
        return place
    raise Problem(404, f"There is no evaluation '{one_line(evaluation, 80)}' of '{one_line(name, 80)}'.")


def arguments(state: AppState, wanted: EvaluationWanted) -> tuple[str, tuple[str, ...]]:
    """The folder's name under runs/, and the words of `eval`.

    Raises:
        Problem: 404, no such run, student or release; 409, a teacher has a run's name, or a pulled release does not
            match itself.
        UserError: an unknown name, or values that do not go together.
    """
    if (wanted.run is None) == (wanted.teacher is None):
        raise UserError("What is measured? Give run, whose student it is, or teacher; one of them.")
    known = choices(state)
    chosen_tasks(wanted.suite, wanted.tasks)
    for what, value, names in (
        ("protocol", wanted.protocol, known.protocols),
        ("guard", wanted.guard, known.guards),
        ("judge", wanted.judge, known.guards[1:]),
        ("attacker", wanted.attacker, known.teachers),
        ("model of the study", wanted.base or None, list(known.study)),
        ("row of the study", wanted.variant or None, known.study.get(wanted.base, [])),
    ):
        if value is not None and value not in names:
            raise unknown(what, value, names)
    name, measured = _measured(state, wanted)
    words = ["eval", *measured, "--output", str(place_of(state, name, wanted.name).absolute())]
    fields = ("suite", "protocol", "limit", "score", "guard", "judge", "attacker", "base", "variant")
    for field in fields:
        if (value := getattr(wanted, field)) not in (None, ""):
            words += [f"--{field}", str(value)]
    if wanted.release is not None:
        words += ["--release", str(releases.usable(state, wanted.release))]
    words += [word for task in wanted.tasks for word in ("--task", task)]
    if state.settings.teachers is not None:
        words += ["--teachers", str(state.settings.teachers.absolute())]
    return name, tuple(words)


def _measured(state: AppState, wanted: EvaluationWanted) -> tuple[str, list[str]]:
    if wanted.teacher is not None:
        if wanted.teacher not in state.known_teachers():
            raise unknown("teacher", wanted.teacher, state.known_teachers())
        name = _PLAIN.sub("-", wanted.teacher).strip(".-_")[:64] or "model"
        if (state.runs / name / "manifest.json").exists():
            raise Problem(409, f"Results of the teacher '{name}' would go into the run of that name.")
        return name, [wanted.teacher]
    assert wanted.run is not None
    run = state.run(wanted.run)
    place = students.folder_of(state, run.name, wanted.student)
    base = students.base_of(place) if wanted.student == students.OWN else None
    # Before its training it was its own base, whatever student is bundled.
    return run.name, [str(place.absolute())] if base is None else [run.name, "--student", base]


def start(state: AppState, wanted: EvaluationWanted, caller: Caller) -> tuple[str, Job]:
    """Queue an evaluation; the folder's name and the job.

    Raises:
        Problem: 404 or 409, as `arguments` does; 409, there are results of that name, or a job that is not over.
        UserError: as `arguments` does.
    """
    name, words = arguments(state, wanted)
    place = place_of(state, name, wanted.name)
    if (place / NAME).exists() and not wanted.replace:
        raise Problem(
            409, f"{name} has results '{wanted.name}' already. Give another name, or say that they may be replaced."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    job = state.queue.put(name, ACTION, words, caller.name)
    state.supervisor.wake()
    return name, job


def again(state: AppState, name: str, caller: Caller) -> Job:
    """Queue the last evaluation once more: it asks for what is missing.

    Raises:
        Problem: 404, there was none; 409, a job is not over.
    """
    job = last_job(state, name, ACTION)
    if job is None:
        raise Problem(404, f"'{one_line(name, 80)}' has no evaluation that could go on.")
    found = state.queue.put(name, ACTION, job.arguments, caller.name)
    state.supervisor.wake()
    return found


def cancel(state: AppState, name: str) -> None:
    """Stop an evaluation as Ctrl-C does; answers are kept.

    Raises:
        Problem: 409, none is under way.
    """
    job = last_job(state, name, ACTION)
    if job is None or not job.open:
        raise Problem(409, f"'{one_line(name, 80)}' has no evaluation that could be stopped.")
    state.queue.cancel(job)
    state.supervisor.wake()


def state_of(state: AppState, name: str, evaluation: str, brief: bool = False) -> EvaluationState:
    """How an evaluation is; `brief` leaves the results unread.

    Raises:
        Problem: 404, there is none of that name.
        UserError: the results cannot be read.
    """
    place = folder_of(state, name, evaluation)
    job = last_job(state, name, ACTION)
    if job is not None and (output_of(job) or Path()).name != evaluation:
        job = None
    under_way = job is not None and job.open
    results = None if brief or under_way or not (place / NAME).is_file() else results_of(place)
    rates = [] if brief else [live_rate(one) for one in live_rates(place)] if results is None else rates_of(results)
    models = [one.label for one in results.models] if results else list(dict.fromkeys(one.model for one in rates))
    return EvaluationState(
        run=name,
        evaluation=evaluation,
        job=None if job is None else state.reader.job_state(job),
        finished=not under_way and (place / NAME).is_file(),
        at=_at(place),
        suite=results.suite if results else "",
        models=models,
        rates=rates,
    )


def _at(place: Path) -> float | None:
    try:
        return (place / NAME).stat().st_mtime
    except OSError:
        return None
