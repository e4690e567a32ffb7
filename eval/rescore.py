"""Stored answers scored again, by another guard or on another part of the response; nothing is generated.

Reads results.json and the logs it names. Writes beside them, never over them:

    <folder>/rescored-<guard>-<part>/
      results.json              of the tasks whose scores can be chosen anew
      logs/<label>-<hash>/*.eval

Run with `saferthoughts rescore FOLDER --guard NAME`, or rescore(folder, roles, "answer").
"""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from inspect_ai import score as score_log
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log
from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from eval.answers import Expected, answers_of
from eval.entry import Asked, Entry
from eval.models import Roles, Servers, open_roles
from eval.results import NAME, Answer, Results, ScoreMode, TaskRun, read_results, write_results
from eval.session import inspecting
from eval.suites import entry
from eval.tally import comparisons, rates
from pipelines.errors import Incomplete, UserError
from pipelines.progress import meter

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_SCORER = "rescored"


@dataclass(frozen=True, slots=True)
class Rescored:
    """The new results, and where they are."""

    results: Results
    folder: Path


def rescore(stored: Path, roles: Roles, part: ScoreMode) -> Rescored:
    """Score what was answered again.

    Args:
        stored: A folder with results.json, or one of the logs below it, whose task and model are then the only ones.
        roles: The guard and the judge to score with.
        part: What the guard sees of a response.

    Raises:
        UserError: there are no results, none of their tasks can be scored anew, or a role is missing.
        Incomplete: the guard failed for some answers, which are unscored in what was written.
    """
    folder, log = (stored, None) if stored.suffix != ".eval" else (_above(stored), stored.resolve())
    results = read_results(folder)
    folder = folder if folder.is_dir() else folder.parent
    chosen = _chosen(results, folder, log)
    asked = {task.name: _asked(task, roles, part) for task, _ in chosen}
    guard = roles.guard.name if roles.guard else "rules"
    output = folder / f"rescored-{_PLAIN.sub('-', guard)}-{part}"
    found: list[Answer] = []
    expected: dict[str, list[Expected]] = {}
    tasks: list[TaskRun] = []
    failures: list[str] = []
    with ExitStack() as stack, inspecting(folder / "logs" / ".inspect"):
        servers = Servers(output, stack)
        for task, labels in chosen:
            one = entry(task.name)
            logs = {}
            needed = {name: role for name, role in roles.given().items() if name in one.roles(asked[task.name])}
            for label in labels:
                before = read_eval_log(str(folder / task.logs[label]))
                with meter(f"rescore {label}, {task.name}", len(before.samples or []), "answers") as shown:
                    again = _patient(_scorer(one, asked[task.name]), shown.advance, failures)
                    after = _score(before, again, open_roles(needed, servers))
                place = output / task.logs[label]
                place.parent.mkdir(parents=True, exist_ok=True)
                write_eval_log(after, str(place))
                logs[label] = task.logs[label]
                due = _due(after)
                expected[task.name] = max(due, expected.get(task.name, []), key=len)
                found += answers_of(label, replace(one, scorer=_SCORER), due, after)
            models = {name: role.teacher.model for name, role in needed.items()}
            kept = {name: model for name, model in task.roles.items() if name not in ("guard", "judge")}
            tasks.append(replace(task, score=part, roles=kept | models, logs=logs))
    named = {label for _, labels in chosen for label in labels}
    measured = tuple(model for model in results.models if model.label in named)
    labels = [model.label for model in measured]
    new = Results(
        format=results.format,
        suite=results.suite,
        models=measured,
        tasks=tuple(tasks),
        rates=tuple(rates(labels, expected, found)),
        comparisons=tuple(comparisons(labels, expected, found)),
        answers=tuple(found),
    )
    write_results(new, output / NAME)
    if failures:
        raise Incomplete(
            f"{len(failures)} answers could not be scored: {failures[0]}. They are unscored in {output / NAME}. Run the "
            "same command again to score all of them anew."
        )
    return Rescored(new, output)


def _above(log: Path) -> Path:
    """The folder whose results.json names a log."""
    for folder in log.resolve().parents:
        if (folder / NAME).exists():
            return folder
    raise UserError(f"No {NAME} above '{log}' tells what the log is of. Give the folder that an evaluation wrote.")


def _chosen(results: Results, folder: Path, log: Path | None) -> list[tuple[TaskRun, list[str]]]:
    """The tasks that can be scored anew, each with the models whose answers are to be."""
    chosen = []
    for task in results.tasks:
        if entry(task.name).rescorer is None:
            continue
        labels = [label for label, path in task.logs.items() if log is None or (folder / path).resolve() == log]
        if labels:
            chosen.append((task, labels))
    if not chosen:
        names = ", ".join(task.name for task in results.tasks)
        raise UserError(f"Nothing in '{log or folder}' depends on a guard or a judge; its tasks are {names}.")
    return chosen


def _asked(task: TaskRun, roles: Roles, part: ScoreMode) -> Asked:
    return Asked(settings=task.settings, score=part, guard=roles.form, judged=roles.judge is not None)


def _scorer(one: Entry, asked: Asked) -> Scorer:
    assert one.rescorer is not None
    return one.rescorer(asked)


def _patient(inner: Scorer, scored: Callable[[], None], failures: list[str]) -> Scorer:
    """A scorer that counts, and after whose failures the others are scored all the same."""

    @scorer(metrics=[mean()], name=_SCORER)
    def patient() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score | None:
            try:
                found = await inner(state, target)
            except Exception as error:  # noqa: BLE001 - whatever an endpoint does, the other answers are there
                told = " ".join(str(error).split())[:300] or type(error).__name__
                failures.append(told)
                found = Score.unscored(reason=f"the guard failed: {told}")
            scored()
            return found

        return score

    return patient()


def _score(log: EvalLog, again: Scorer, models: dict[str, Model]) -> EvalLog:
    # Roles and model of the log would be made again from what it says of them, keys and all: none of them is asked.
    log.eval.model_roles = None
    return score_log(
        log, again, model=get_model("none/none"), model_roles=dict(models), action="overwrite", display="none"
    )


def _due(log: EvalLog) -> list[Expected]:
    """Every answer that the log was to have."""
    categories = {str(sample.id): str(sample.metadata.get("category", "")) for sample in log.samples or []}
    ids = [str(name) for name in log.eval.dataset.sample_ids or categories]
    epochs = range(1, (log.eval.config.epochs or 1) + 1)
    return [Expected(name, epoch, categories.get(name, "")) for name in ids for epoch in epochs]
