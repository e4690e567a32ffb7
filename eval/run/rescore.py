"""Stored answers scored again, by another guard or judge or on another part of the response; nothing is generated.

Reads results.json and the logs it names. Writes beside them, never over them, nor over what another scored:

    <folder>/rescored-<guard>-<part>/    rescored-judge-<judge>/    rescored-<guard>-<part>-judge-<judge>/
      results.json              of the tasks whose scores can be chosen anew
      scores.jsonl              every score as it was given: a rescoring that was stopped goes on with the rest
      logs/<label>-<hash>/*.eval

Where two who score have the same name (two guards of one name at two addresses), the second's folder ends with -2.

Run with `saferthoughts rescore FOLDER --guard NAME`, or rescore(folder, roles, "answer").
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from inspect_ai import score_async
from inspect_ai.log import EvalLog, write_eval_log
from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState

from eval.models.inspect_models import ModelRoles, Role, Servers, open_roles
from eval.run.answers import Expected, answers_of, due_of
from eval.run.inspect_session import inspecting
from eval.run.kept_scores import KeptScores, kept_by, key_of
from eval.run.logs import read_log
from eval.run.metrics import assembled
from eval.run.results import NAME, RESCORED, Answer, Results, ScoreMode, TaskRun, read_results, write_results
from eval.scorers import guards
from eval.suites import entry
from eval.task_spec import TaskRequest, TaskSpec
from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, UserError
from pipelines.progress import meter

_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_SCORER = "rescored"


@dataclass(frozen=True, slots=True)
class Rescored:
    """The new results, and where they are."""

    results: Results
    folder: Path


@dataclass(slots=True)
class _Found:
    """What has come of it so far: scores, answers, those that were due by task, and why some could not be scored."""

    kept: KeptScores
    answers: list[Answer] = field(default_factory=list)
    expected: dict[str, list[Expected]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def rescore(stored: Path, roles: ModelRoles, part: ScoreMode, by: Collection[str] = ("guard", "judge")) -> Rescored:
    """Score what was answered again.

    Args:
        stored: A folder with results.json, or one of the logs below it, whose task and model are then the only ones.
        roles: The guard and the judge to score with.
        part: What the guard sees of a response.
        by: Whose scores are made anew; the tasks that the other decides are left out.

    Raises:
        UserError: there are no results, or none of their tasks is scored by one of `by`.
        Incomplete: the guard failed for some answers, which are unscored in what was written.
    """
    log = stored.resolve() if stored.suffix == ".eval" else None
    folder = stored if log is None else _above(log)
    before = read_results(folder)
    folder = folder if folder.is_dir() else folder.parent
    chosen = list(_chosen(before, folder, log, by))
    of_one = f"{chosen[0][0].name}-{chosen[0][2][0]}" if log else ""
    output, scored_by = _place(folder, roles, part, by, of_one)
    tasks = []
    with (
        ExitStack() as stack,
        inspecting(folder / "logs" / ".inspect"),
        KeptScores(output, scored_by) as kept,
    ):
        found = _Found(kept)
        servers = Servers(output, stack)
        for task, spec, labels in chosen:
            request = TaskRequest(settings=task.settings, score=part, guard=roles.form, judged=roles.judge is not None)
            tasks.append(_score_task(task, spec, labels, request, roles, servers, folder, found))
    named = {label for task in tasks for label in task.logs}
    models = tuple(model for model in before.models if model.label in named)
    order = [model.label for model in models]
    answers = sorted(found.answers, key=lambda one: order.index(one.model))
    results = assembled(before.suite, models, tasks, found.expected, answers)
    write_results(results, output / NAME)
    if found.failures:
        raise Incomplete(
            f"{len(found.failures)} answers could not be scored: {found.failures[0]}. They are unscored in "
            f"{output / NAME}. Go on with: {typed_command()}"
        )
    return Rescored(results, output)


def _score_task(
    task: TaskRun,
    one: TaskSpec,
    labels: Sequence[str],
    request: TaskRequest,
    roles: ModelRoles,
    servers: Servers,
    folder: Path,
    found: _Found,
) -> TaskRun:
    """Rescore one task's answers of every model, write the logs, and return how they were scored."""
    assert one.rescorer is not None
    needed = {name: role for name, role in roles.given().items() if name in one.roles(request)}
    for label in labels:
        log = read_log(folder, task.logs[label])
        with meter(f"rescore {label}, {task.name}", len(log.samples or []), "answers") as shown:
            again = _patient(one.rescorer(request), shown.advance, found, partial(key_of, label, _way(task)))
            log = _score(log, again, open_roles(needed, servers))
        place = servers.folder / task.logs[label]
        place.parent.mkdir(parents=True, exist_ok=True)
        write_eval_log(log, str(place))
        due = due_of(log)
        found.expected[task.name] = max(due, found.expected.get(task.name, []), key=len)
        found.answers += answers_of(label, replace(one, scorer=_SCORER), due, log)
    kept = {name: model for name, model in task.roles.items() if name not in ("guard", "judge")}
    now = roles.names_of(needed, one.decided_by)
    return replace(
        task,
        measure=one.measure,
        score=request.score,
        roles=kept | now,
        logs={label: task.logs[label] for label in labels},
    )


def _above(log: Path) -> Path:
    """The folder whose results.json names a log."""
    for folder in log.resolve().parents:
        if (folder / NAME).exists():
            return folder
    raise UserError(f"No {NAME} above '{log}' tells what the log is of. Give the folder that an evaluation wrote.")


def _chosen(
    results: Results, folder: Path, log: Path | None, by: Collection[str]
) -> Iterator[tuple[TaskRun, TaskSpec, list[str]]]:
    """The tasks that can be rescored, how, and the models whose answers are rescored."""
    none = True
    for task in results.tasks:
        labels = [label for label, path in task.logs.items() if log is None or (folder / path).resolve() == log]
        spec = entry(task.name)
        if spec.guardable and spec.decided_by not in by:
            spec = guards.attack(spec.name, spec.title, spec.build)
        if labels and spec.decided_by in by and spec.rescorer is not None:
            none = False
            yield task, spec, labels
    if none:
        names = ", ".join(task.name for task in results.tasks)
        raise UserError(
            f"Nothing in '{log or folder}' is scored by a {' or a '.join(by)}; its tasks are {names}. A guard scores "
            "attacks, such as none and pair; a judge over-refusal, such as xstest."
        )


def _place(folder: Path, roles: ModelRoles, part: ScoreMode, by: Collection[str], of_one: str) -> tuple[Path, str]:
    """The folder that is named for who scores, and all that decides their scores; never one in which another scored.

    `of_one` names the task and the model of a single log, whose results are none of the whole.
    """
    names: list[str] = []
    who: dict[str, Any] = {"of": of_one}
    if "guard" in by:
        names.append(f"{'rules' if roles.guard is None else roles.guard.name}-{part}")
        who["guard"] = [part, roles.form, *_identity(roles.guard)]
    if "judge" in by:
        names.append(f"judge-{'rules' if roles.judge is None else roles.judge.name}")
        who["judge"] = _identity(roles.judge)
    named = _PLAIN.sub("-", "-".join([*names, *([of_one] if of_one else [])]))
    # Its address may hold a key.
    scored_by = hashlib.sha256(json.dumps(who).encode()).hexdigest()
    for number in count(1):
        output = folder / (f"{RESCORED}{named}" if number == 1 else f"{RESCORED}{named}-{number}")
        if not output.exists() or kept_by(output) == scored_by:
            return output, scored_by
    raise AssertionError("there is always a next number")


def _identity(role: Role | None) -> list[str]:
    if role is None:
        return []
    sampling = role.sampling.model_dump_json() if role.sampling else ""
    return [role.name, role.teacher.model, role.teacher.place, role.form, sampling]


def _way(task: TaskRun) -> str:
    """A task as far as its settings decide a score."""
    return json.dumps([task.name, *(task.settings.get(name) for name in ("classes", "part", "judge"))])


def _patient(inner: Scorer, scored: Callable[[], None], found: _Found, key: Callable[[TaskState], str]) -> Scorer:
    """A scorer that counts, keeps each score, and after whose failures the others are scored all the same."""

    @scorer(metrics=[mean()], name=_SCORER)
    def patient() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score | None:
            given = found.kept.get(key(state))
            if given is None:
                try:
                    given = await inner(state, target)
                except Exception as error:  # noqa: BLE001 - whatever an endpoint does, the other answers are there
                    reason = " ".join(str(error).split())[:300] or type(error).__name__
                    found.failures.append(reason)
                    given = Score.unscored(reason=f"the guard failed: {reason}")
                else:
                    if given is not None:
                        found.kept.put(key(state), given)
            scored()
            return given

        return score

    return patient()


def _score(log: EvalLog, again: Scorer, models: dict[str, Model]) -> EvalLog:
    # Roles and model of the log would be made again from what it says of them, keys and all: none of them is asked.
    log.eval.model_roles = None

    async def scored() -> EvalLog:
        try:
            nobody = get_model("none/none")
            return await score_async(
                log, again, model=nobody, model_roles=dict(models), action="overwrite", display="none"
            )
        finally:
            for model in models.values():
                await model.api.aclose()

    return anyio.run(scored)
