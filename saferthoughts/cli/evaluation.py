"""Commands of evaluation: eval and rescore, and what the demo shows of it.

Writes what `eval/run/stage.py` does, and the table into the card of a model that was trained here.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.command_line import typed_command
from pipelines.errors import Interrupted, UserError, unknown
from saferthoughts.cli.options import BaseUrl, KeyVariable, ModelName, Settings, TeacherFile, note, out, say

if TYPE_CHECKING:
    from eval.run.planning import Wanted
    from eval.run.results import ScoreMode
    from pipelines.runs import RunFolder
    from saferthoughts.cli.model_resolver import Place

_MODES: "tuple[ScoreMode, ...]" = ("full", "answer", "reasoning")

Measured = Annotated[
    str | None,
    typer.Argument(
        help="A run (its student before and after), a checkpoint's folder, or a teacher of `teachers list`.",
        metavar="MODEL",
    ),
]
Suite = Annotated[str, typer.Option(help="quick (bundled samples), paper, safety or reasoning.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="A task in place of the suite's; repeatable.")]
Protocol = Annotated[
    str | None,
    typer.Option(help="paper or repository: the study's two; quick: short answers, as for bundled samples."),
]
Limit = Annotated[int | None, typer.Option(help="At most so many questions a task, the first ones.")]
Scored = Annotated[str, typer.Option(help="What the guard sees of a response: full, answer or reasoning.")]
Guard = Annotated[str | None, typer.Option(help="Who tells unsafe responses: rules, a judge or a teacher.")]
Rater = Annotated[
    str | None, typer.Option("--judge", help="Who rates attacks and reads refusals: a judge or a teacher.")
]
Attacker = Annotated[str | None, typer.Option(help="Who writes attacks: a teacher.")]
Data = Annotated[list[str] | None, typer.Option(help="A local file in place of a task's data, TASK=FILE; repeatable.")]
Trained = Annotated[str | None, typer.Option("--release", help="The release whose prompts XSTest leaves out.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting of a task, TASK.key=value; repeatable.")]
Output = Annotated[Path | None, typer.Option(help="Where results and logs go.")]
Base = Annotated[str, typer.Option(help="The model of the study's table to compare with.")]
Variant = Annotated[str, typer.Option(help="The row of that model: raw, direct, improved, ...")]
Student = Annotated[Path | None, typer.Option(help="For a run: the checkpoint that was trained.")]


def evaluate(
    model: Measured = None,
    suite: Suite = "quick",
    tasks: Tasks = None,
    protocol: Protocol = None,
    limit: Limit = None,
    score: Scored = "full",
    guard: Guard = None,
    judge: Rater = None,
    attacker: Attacker = None,
    data: Data = None,
    release: Trained = None,
    sets: Overrides = None,
    output: Output = None,
    base: Base = "",
    variant: Variant = "",
    student: Student = None,
    base_url: BaseUrl = None,
    name: ModelName = None,
    api_key_env: KeyVariable = None,
    teachers: TeacherFile = None,
) -> None:
    """Measure a model by the tasks of a suite, with intervals; goes on where it was stopped.

    Example: saferthoughts eval demo --task refusal

    Example: saferthoughts eval deepseek --suite safety --guard llama-guard-3 --judge openai --attacker vllm

    Example: saferthoughts eval --base-url http://127.0.0.1:8000/v1 --model my-r1 --task refusal --limit 5
    """
    from eval.models.inspect_models import roles
    from eval.protocols import parsed
    from eval.run.planning import Wanted
    from eval.suites import TASKS
    from pipelines.settings.old_names import typed_name
    from pipelines.settings.options import teacher_at
    from saferthoughts.cli.model_resolver import Named, place_of

    flags = bool(base_url or name or api_key_env)
    endpoint = teacher_at(base_url, name, api_key_env) if flags else None
    method, at, teacher = variant.partition("@")
    variant = f"{typed_name(method)}{at}{teacher}"
    place = place_of(Named(Settings.runs, model, endpoint, teachers, student, output, base, variant))
    wanted = Wanted(
        suite=suite,
        tasks=tuple(tasks or ()),
        protocol=protocol,
        overrides=parsed(sets or (), TASKS),
        roles=roles(guard, judge, attacker, teachers),
        limit=limit,
        score=_mode(score),
        data=dict(_file(text) for text in data or ()),
        trained=_trained(release, place),
    )
    if guard is None:
        _require_guard(wanted)
    measure(place, wanted)


def _require_guard(wanted: "Wanted") -> None:
    """Refuse an attack success rate that nobody was chosen for to judge; the bundled samples have string rules."""
    from eval.suites import chosen_tasks, entry

    tasks = [task for task in chosen_tasks(wanted.suite, wanted.tasks) if not wanted.bundled(task)]
    asked = [task for task in tasks if entry(task).decided_by == "guard"]
    if asked:
        raise UserError(
            f"Who tells whether a response is unsafe? Task {asked[0]} needs --guard, such as --guard llama-guard-3, "
            "or --guard rules for string rules, which count every answer that does not refuse."
        )


def evaluate_run(run: "RunFolder", student: Path | None) -> None:
    """Measure the run's student before and after training on the bundled refusal sets, as the demo does."""
    from eval.run.planning import Wanted
    from saferthoughts.cli.model_resolver import Named, place_of_run

    measure(place_of_run(run, Named(run.path.parent, student=student)), Wanted(tasks=("refusal",)))


def measure(place: "Place", wanted: "Wanted") -> None:
    """Evaluate, print the table, put it into the card and the run's manifest.

    Raises:
        Incomplete: answers are lacking; everything else has been done with what there is.
        Interrupted: Ctrl-C.
    """
    from cards.model_card import write_model_card
    from eval.report.table import results_markdown, results_table
    from eval.run.results import NAME
    from eval.run.stage import evaluate as run_evaluation
    from eval.run.stage import require_complete
    from pipelines.runs import file_hash

    try:
        results = run_evaluation(place.targets, wanted, place.output)
    except KeyboardInterrupt:
        kept = f"what was answered is in {place.output / 'logs'}"
        raise Interrupted(f"Interrupted; {kept}. Go on with: {typed_command()}") from None
    for folder in place.cards:
        write_model_card(folder, results_markdown(results))
    if place.run is not None:
        place.run.record("eval", results=file_hash(place.output / NAME))
    if rehearsed := [model.label for model in results.models if model.rehearsed]:
        say(f"{', '.join(rehearsed)}: trained on rows of the rehearsal teacher, a program that stands in for a model")
    out.print(results_table(results))
    require_complete(results, place.output)


def rescore(
    stored: Annotated[Path, typer.Argument(help="A folder with results.json, or one log below it.", metavar="LOG")],
    guard: Guard = None,
    judge: Rater = None,
    score: Scored = "full",
    teachers: TeacherFile = None,
) -> None:
    """Score stored answers again, with another guard or judge; generates nothing and writes beside, never over.

    Example: saferthoughts rescore runs/demo/eval --guard llama-guard-3 --score answer
    """
    from eval.models.inspect_models import roles
    from eval.report.table import results_table
    from eval.run.rescore import rescore as score_again

    if guard is None and judge is None:
        raise UserError("With whom? Give --guard NAME, such as llama-guard-3 or rules, or --judge NAME.")
    by = [name for name, given in (("guard", guard), ("judge", judge)) if given is not None]
    try:
        done = score_again(stored, roles(guard, judge, None, teachers), _mode(score), by)
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped; the scores so far are kept. Go on with: {typed_command()}") from None
    out.print(results_table(done.results))
    say(f"written to {done.folder}; what others scored is as it was")


def _mode(score: str) -> "ScoreMode":
    for mode in _MODES:
        if score == mode:
            return mode
    raise unknown("--score", score, _MODES)


def _file(text: str) -> tuple[str, Path]:
    from pipelines.settings.overrides import key_and_value

    task, file = key_and_value(text, "--data", "math500=math500.jsonl")
    return task, Path(file)


def _trained(release: str | None, place: "Place") -> frozenset[str] | None:
    """Prompts that the student was trained on: of the release that is named, or that its folder names.

    None where nothing tells: nothing can then be left out as trained on.
    """
    from eval.training_overlap import release_of_student, trained_prompts
    from saferthoughts.cli.release_words import release_folder

    if release is not None:
        return trained_prompts(release_folder(release))
    for folder in place.cards:
        found = release_of_student(folder, [Settings.runs])
        if found is not None:
            note(f"trained on: {found}, whose prompts are left out where the protocol says so")
            return trained_prompts(found)
        note(
            f"{folder}: the release that it was trained on is nowhere under {Settings.runs}/, or holds other files now"
        )
    return None
