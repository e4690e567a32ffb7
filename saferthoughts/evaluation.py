"""Evaluating models: every task of a suite, with intervals.

Reads checkpoints and the tasks' data, asks endpoints. Writes what `eval/run/stage.py` does, and the table into the card
of a model that was trained here.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, Interrupted, UserError, unknown
from pipelines.event_loops import outside_loop
from pipelines.progress import console
from saferthoughts.model_resolver import Named, Place, place_of
from saferthoughts.release import Release, release_path
from saferthoughts.review import AnswerReview
from saferthoughts.run import Run
from saferthoughts.settings import (
    Assignments,
    StoredPath,
    assignments,
    files_by_name,
    path_of,
    runs_folder,
    texts_of,
)
from saferthoughts.tables import Table
from saferthoughts.training import Student

if TYPE_CHECKING:
    from eval.run.planning import Wanted
    from eval.run.results import Results, ScoreMode
    from pipelines.settings.teacher import Teacher
    from saferthoughts.evaluation_plan import EvaluationPlan

_MODES: "tuple[ScoreMode, ...]" = ("full", "answer", "reasoning", "apart")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        results: Everything: models, tasks, rates, comparisons, and each answer.
        path: The folder with results.json and Inspect's logs.
    """

    results: "Results"
    path: Path

    def __repr__(self) -> str:
        models = [model.label for model in self.results.models]
        tasks = [task.name for task in self.results.tasks]
        return f"Evaluation({str(self.path)!r}, models={models}, tasks={tasks})"

    def table(self) -> Table:
        """A row for each model, task and group of questions ("" is all): counts, rate, and its 95 % interval."""
        rows = []
        for rate in self.results.rates:
            counts = asdict(rate)
            del counts["pass_at"]
            rows.append({**counts, "rate": rate.rate.rate, "low": rate.rate.low, "high": rate.rate.high})
        return Table(pa.Table.from_pylist(rows))

    def rescore(
        self,
        *,
        guard: str | None = None,
        judge: str | None = None,
        score: str = "full",
        teachers: StoredPath | None = None,
    ) -> "Evaluation":
        """Score the stored answers again, with another guard or judge; see `rescore`."""
        return rescore(self.path, guard=guard, judge=judge, score=score, teachers=teachers)

    def review(self, *, runs: StoredPath | None = None, workspace: str | None = None) -> AnswerReview:
        """People's votes on the answers, in Argilla; see `AnswerReview`."""
        return AnswerReview(self.path, runs=runs, workspace=workspace)


def rescore(
    stored: StoredPath,
    *,
    guard: str | None = None,
    judge: str | None = None,
    score: str = "full",
    teachers: StoredPath | None = None,
) -> Evaluation:
    """Score stored answers again; generates nothing, and writes beside what others scored.

    Args:
        stored: A folder with results.json, or one log below it.
        guard: Who decides which responses are unsafe.
        judge: Who reads refusals.
        score: What the guard sees of a response: "full", "answer", "reasoning", or "apart" for both.
        teachers: A teachers.yaml of your own.

    Raises:
        Incomplete: the guard failed for some answers, which are unscored.
        Interrupted: it was stopped; the scores so far are kept.
        UserError: there are no results, neither guard nor judge is named, or none of the tasks is scored by them.
    """
    from eval.models.inspect_models import roles
    from eval.run.rescore import rescore as score_again

    if guard is None and judge is None:
        raise UserError("With whom? Give --guard NAME, such as llama-guard-3 or rules, or --judge NAME.")
    by = [name for name, given in (("guard", guard), ("judge", judge)) if given is not None]
    chosen, part = roles(guard, judge, None, path_of(teachers)), score_mode(score)
    try:
        done = outside_loop(lambda: score_again(Path(stored), chosen, part, by))
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped; the scores so far are kept. Go on with: {typed_command()}") from None
    return Evaluation(done.results, done.folder)


def evaluate(
    model: Student | Run | StoredPath | None = None,
    *,
    suite: str = "quick",
    tasks: Iterable[str] | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    score: str = "full",
    guard: str | None = None,
    judge: str | Assignments | None = None,
    attacker: str | None = None,
    data: Assignments | None = None,
    release: Release | StoredPath | None = None,
    settings: Assignments | None = None,
    replay: StoredPath | None = None,
    output: StoredPath | None = None,
    base: str = "",
    variant: str = "",
    student: StoredPath | None = None,
    base_url: str | None = None,
    endpoint_model: str | None = None,
    api_key_env: str | None = None,
    teachers: StoredPath | None = None,
    runs: StoredPath | None = None,
    before: "Callable[[EvaluationPlan], None] | None" = None,
) -> Evaluation:
    """Measure a model by the tasks of a suite, with intervals; an evaluation that was stopped goes on.

    >>> import saferthoughts as st
    >>> found = st.evaluate("rehearsal", tasks=["refusal"], limit=1)
    >>> found.table().to_pandas()["n"].tolist()
    [4, 1, 1, 1, 1]

    Args:
        model: A student, a run (its student before and after), a checkpoint's folder, or a teacher's name.
        suite: "quick" (bundled samples), "paper", "safety" or "reasoning".
        tasks: Tasks in place of the suite's.
        protocol: "paper", "repository", "ours" or "quick"; docs/protocols.md has them side by side.
        limit: The first N questions of each task.
        score: What the guard sees of a response: "full", "answer", "reasoning", or "apart" for both.
        guard: Who decides which responses are unsafe: "rules", a judge or a teacher.
        judge: Who rates attacks and reads refusals, for all tasks or by task: `{"pair": "gpt-4o-mini"}`.
        attacker: Who writes attacks.
        data: A local file in place of a task's data, by task.
        release: The release whose prompts XSTest leaves out.
        settings: Settings of tasks, as in `{"none.max_tokens": 512}`.
        replay: Another evaluation whose PAIR prompts are asked, in place of an attack of its own.
        output: Folder for results and logs.
        base: The model of the study's table to compare with.
        variant: The row of that model.
        student: For a run: the checkpoint that was trained.
        base_url: An endpoint, in place of `model`.
        endpoint_model: The model to ask for there.
        api_key_env: The environment variable with its key.
        teachers: A teachers.yaml of your own.
        runs: The folder of run folders.
        before: Is given what will be asked, before anything is; what it raises ends the evaluation there.

    Raises:
        Incomplete: answers are lacking; `result` has what there is.
        Interrupted: it was stopped.
        UserError: an unknown model, task or role, or an attack that nobody judges; before anything is asked.
    """
    from eval.models.inspect_models import roles
    from eval.models.kept_replies import FOLDER
    from eval.run.planning import Wanted

    if isinstance(model, Run):
        runs, model = model.path.parent, model.name
    folder = runs_folder(runs)
    general_judge, judges = _judges(judge)
    place = place_of(
        Named(
            runs=folder,
            name=_name_of(model),
            endpoint=_endpoint(base_url, endpoint_model, api_key_env),
            teachers=path_of(teachers),
            student=path_of(student),
            output=path_of(output),
            base=base,
            variant=_variant(variant),
        )
    )
    wanted = Wanted(
        suite=suite,
        tasks=texts_of(tasks),
        protocol=protocol,
        overrides=_overrides(settings, replay),
        roles=roles(guard, general_judge, attacker, path_of(teachers), judges),
        limit=limit,
        score=score_mode(score),
        data=dict(_file(text) for text in files_by_name(data)),
        trained=_trained(release, place, folder),
        kept=folder / FOLDER,
    )
    if guard is None:
        _require_guard(wanted)
    if replay is not None:
        _require_pair(wanted)
    if before is not None:
        before(_plan(place, wanted))
    return measure(place, wanted)


def _name_of(model: Student | StoredPath | None) -> str | None:
    if isinstance(model, Student):
        return str(model.path)
    return None if model is None else str(model)


def _endpoint(base_url: str | None, model: str | None, api_key_env: str | None) -> "Teacher | None":
    from pipelines.settings.options import teacher_at

    return teacher_at(base_url, model, api_key_env) if base_url or model or api_key_env else None


def _variant(typed: str) -> str:
    """A row of the study's table, METHOD or METHOD@TEACHER, by the name that the method has now."""
    from pipelines.settings.old_names import typed_name

    method, at, teacher = typed.partition("@")
    return f"{typed_name(method)}{at}{teacher}"


def _plan(place: Place, wanted: "Wanted") -> "EvaluationPlan":
    from eval.run.planning import plan
    from saferthoughts.evaluation_plan import plan_of

    return plan_of(place.targets, plan(wanted), wanted.kept)


def _overrides(settings: Assignments | None, replay: StoredPath | None) -> "dict[str, dict[str, Any]]":
    from eval.protocols import parsed
    from eval.suites import TASKS

    found = parsed(assignments(settings), TASKS)
    if replay is not None:
        found["pair"] = {**found.get("pair", {}), "replay": str(path_of(replay))}
    return found


def _require_pair(wanted: "Wanted") -> None:
    from eval.suites import chosen_tasks

    if "pair" not in (chosen := chosen_tasks(wanted.suite, wanted.tasks)):
        raise UserError(f"--replay is for the task pair, and the tasks are {', '.join(chosen)}. Add --task pair.")


def measure(place: Place, wanted: "Wanted") -> Evaluation:
    """Evaluate, and put the table into the models' cards and a hash of the results into the run's manifest.

    Raises:
        Incomplete: answers are lacking; everything else has been done with what there is.
        Interrupted: Ctrl-C.
    """
    from cards.card.model_card import write_model_card
    from eval.report.hub_results import hub_results
    from eval.report.table import results_markdown
    from eval.run.results import NAME
    from eval.run.stage import evaluate as run_evaluation
    from eval.run.stage import require_complete
    from pipelines.runs import file_hash

    try:
        results = outside_loop(lambda: run_evaluation(place.targets, wanted, place.output))
    except KeyboardInterrupt:
        kept = f"what was answered is in {place.output / 'logs'}"
        raise Interrupted(f"Interrupted; {kept}. Go on with: {typed_command()}") from None
    labels = {target.path: target.label for target in place.targets}
    for folder in place.cards:
        write_model_card(folder, results_markdown(results), hub_results(results, labels.get(folder, "")))
    if place.run is not None:
        place.run.record("eval", results=file_hash(place.output / NAME))
    evaluation = Evaluation(results, place.output)
    try:
        require_complete(results, place.output)
    except Incomplete as error:
        raise Incomplete(str(error), evaluation) from None
    return evaluation


def score_mode(score: str) -> "ScoreMode":
    """What the guard sees of a response.

    Raises:
        UserError: it is none of the three.
    """
    for mode in _MODES:
        if score == mode:
            return mode
    raise unknown("--score", score, _MODES)


def _require_guard(wanted: "Wanted") -> None:
    """Require a guard where a task's attack success rate needs one; the bundled samples have string rules."""
    from eval.suites import chosen_tasks, entry

    tasks = [task for task in chosen_tasks(wanted.suite, wanted.tasks) if not wanted.bundled(task)]
    asked = [task for task in tasks if entry(task).decided_by == "guard"]
    if asked:
        raise UserError(
            f"Who tells whether a response is unsafe? Task {asked[0]} needs --guard, such as --guard llama-guard-3, "
            "or --guard rules for string rules, which count every answer that does not refuse."
        )


def _judges(judge: str | Assignments | None) -> tuple[str | None, dict[str, str]]:
    """The judge of all tasks, and those of single ones.

    Raises:
        UserError: there is no such task, or two judges of the same.
    """
    from eval.suites import TASKS

    found: dict[str, str] = {}
    for text in files_by_name(judge):
        task, _, name = text.rpartition("=")
        if task and task not in TASKS:
            raise unknown("task in --judge", task, TASKS)
        if task in found:
            raise UserError(
                f"--judge {text}: {task or 'every task'} has {found[task]} already. Give one for each task."
            )
        found[task] = name
    return found.pop("", None), found


def _file(text: str) -> tuple[str, Path]:
    from pipelines.settings.overrides import key_and_value

    task, file = key_and_value(text, "--data", "math500=math500.jsonl")
    return task, Path(file)


def _trained(release: Release | StoredPath | None, place: Place, runs: Path) -> frozenset[str] | None:
    """Prompts that the student was trained on: of the release that is named, or that its folder names.

    None where the release is unknown: nothing can then be left out as trained on.
    """
    from eval.training_overlap import release_of_student, trained_prompts

    if release is not None:
        return trained_prompts(release_path(release))
    for folder in place.cards:
        found = release_of_student(folder, [runs])
        if found is not None:
            _note(f"trained on: {found}, whose prompts are left out where the protocol says so")
            return trained_prompts(found)
        _note(f"{folder}: the release that it was trained on is nowhere under {runs}/, or holds other files now")
    return None


def _note(text: str) -> None:
    console.print(text, soft_wrap=True)
