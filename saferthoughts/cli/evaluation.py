"""Commands of evaluation: eval and rescore, and what the demo shows of it.

Writes what `eval/run/stage.py` does, and the table into the card of a model that was trained here.
"""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pipelines.errors import Incomplete, UserError
from saferthoughts.cli.options import BaseUrl, KeyVariable, ModelName, Settings, TeacherFile, note, out, say, say_json

if TYPE_CHECKING:
    from eval.run.planning import Wanted
    from saferthoughts.evaluation import Evaluation
    from saferthoughts.evaluation_plan import EvaluationPlan
    from saferthoughts.model_resolver import Place
    from saferthoughts.run import Run

Measured = Annotated[
    str | None,
    typer.Argument(
        help="A run (its student before and after), a checkpoint's folder, gguf:FILE, ORG/NAME, or a teacher of "
        "`teachers list`.",
        metavar="MODEL",
    ),
]
Suite = Annotated[
    str, typer.Option(help="quick (bundled samples), paper, safety, reasoning; attacks, over-refusal, useful.")
]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="A task instead of the suite's; repeatable.")]
Protocol = Annotated[
    str | None,
    typer.Option(help="paper, repository (the study's two), ours, or quick (short answers, for bundled samples)."),
]
Limit = Annotated[int | None, typer.Option(help="The first N questions of each task.")]
Scored = Annotated[
    str,
    typer.Option(help="Part of a response that the guard sees: full, answer, reasoning, or apart (both, separately)."),
]
Guard = Annotated[str | None, typer.Option(help="Guard that detects unsafe responses: rules, a judge or a teacher.")]
Rater = Annotated[str | None, typer.Option("--judge", help="Judge of refusals: a judge or a teacher.")]
Judges = Annotated[
    list[str] | None,
    typer.Option("--judge", help="Judge of attacks and refusals: NAME, or TASK=NAME for one task; repeatable."),
]
Attacker = Annotated[str | None, typer.Option(help="Teacher that writes attacks.")]
Data = Annotated[list[str] | None, typer.Option(help="A local file instead of a task's data, TASK=FILE; repeatable.")]
Trained = Annotated[str | None, typer.Option("--release", help="The release whose prompts XSTest leaves out.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting of a task, TASK.key=value; repeatable.")]
Replay = Annotated[
    Path | None,
    typer.Option(help="Ask the best PAIR prompts of another evaluation (its folder or a log) instead of attacking."),
]
Output = Annotated[Path | None, typer.Option(help="Folder for results and logs.")]
Base = Annotated[str, typer.Option(help="The model of the study's table to compare with.")]
Variant = Annotated[str, typer.Option(help="The method of that row: raw, direct, improved, ...")]
Student = Annotated[Path | None, typer.Option(help="For a run: the checkpoint that was trained.")]


def evaluate(
    model: Measured = None,
    suite: Suite = "quick",
    tasks: Tasks = None,
    protocol: Protocol = None,
    limit: Limit = None,
    score: Scored = "full",
    guard: Guard = None,
    judge: Judges = None,
    attacker: Attacker = None,
    data: Data = None,
    release: Trained = None,
    sets: Overrides = None,
    replay: Replay = None,
    output: Output = None,
    base: Base = "",
    variant: Variant = "",
    student: Student = None,
    base_url: BaseUrl = None,
    name: ModelName = None,
    api_key_env: KeyVariable = None,
    teachers: TeacherFile = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be asked, and ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print it as JSON.")] = False,
) -> None:
    """Measure a model by the tasks of a suite, with intervals; resumes if stopped.

    Example: saferthoughts eval demo --task refusal

    Example: saferthoughts eval deepseek --suite safety --guard llama-guard-3 --judge openai --attacker vllm

    Example: saferthoughts eval --base-url http://127.0.0.1:8000/v1 --model my-r1 --task refusal --limit 5
    """
    from saferthoughts.cli.release_words import release_folder
    from saferthoughts.evaluation import evaluate as measure

    if as_json and not plan:
        raise UserError("--json is for --plan. Give both; an evaluation's figures are in its results.json.")
    _print(
        lambda: measure(
            model,
            suite=suite,
            tasks=tasks,
            protocol=protocol,
            limit=limit,
            score=score,
            guard=guard,
            judge=judge,
            attacker=attacker,
            data=data,
            release=None if release is None else release_folder(release),
            settings=sets,
            replay=replay,
            output=output,
            base=base,
            variant=variant,
            student=student,
            base_url=base_url,
            endpoint_model=name,
            api_key_env=api_key_env,
            teachers=teachers,
            runs=Settings.runs,
            before=partial(_show_plan, as_json) if plan else None,
        )
    )


def _show_plan(as_json: bool, found: "EvaluationPlan") -> None:
    say_json(found) if as_json else say(found.words())
    raise typer.Exit


def evaluate_run(run: "Run", student: Path | None) -> None:
    """Measure the run's student before and after training on the bundled refusal sets, as the demo does."""
    from eval.run.planning import Wanted
    from saferthoughts.model_resolver import Named, place_of_run

    print_measured(place_of_run(run.folder, Named(run.path.parent, student=student)), Wanted(tasks=("refusal",)))


def print_measured(place: "Place", wanted: "Wanted") -> None:
    """Measure some models and print their table."""
    from saferthoughts.evaluation import measure

    _print(lambda: measure(place, wanted))


def _print(measure: "Callable[[], Evaluation]") -> None:
    """Evaluate and print the table, also where answers are lacking.

    Raises:
        Incomplete: they are.
    """
    try:
        _print_done(measure())
    except Incomplete as error:
        if error.result is not None:
            _print_done(cast("Evaluation", error.result))
        raise


def _print_done(done: "Evaluation") -> None:
    from eval.report.table import results_table

    results = done.results
    if rehearsed := [model.label for model in results.models if model.rehearsed]:
        say(f"{', '.join(rehearsed)}: trained on rows of the rehearsal teacher, a program that stands in for a model")
    out.print(results_table(results))
    note(f"Written: {done.path}/results.json and logs. Next: saferthoughts report eval {shlex.quote(str(done.path))}")


def rescore(
    stored: Annotated[Path, typer.Argument(help="A folder with results.json, or one log below it.", metavar="LOG")],
    guard: Guard = None,
    judge: Rater = None,
    score: Scored = "full",
    teachers: TeacherFile = None,
) -> None:
    """Score stored answers again with another guard or judge; generates and overwrites nothing.

    Example: saferthoughts rescore runs/demo/eval --guard llama-guard-3 --score answer
    """
    from eval.report.table import results_table
    from saferthoughts.evaluation import rescore as score_again

    done = score_again(stored, guard=guard, judge=judge, score=score, teachers=teachers)
    out.print(results_table(done.results))
    say(f"written to {done.path}; what others scored is as it was")
