"""The front door: one command a stage, in the order of work. `saferthoughts --help` shows them.

Stages are imported when they are called, so that help and errors come at once and a stage needs only its own extra.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.errors import UserError
from saferthoughts.cli.curation import check, contamination, duplicates, select, sql
from saferthoughts.cli.dataset import dataset_app
from saferthoughts.cli.evaluation import evaluate, rescore
from saferthoughts.cli.judge import judge_app
from saferthoughts.cli.options import (
    AsJson,
    BaseUrl,
    KeyVariable,
    MaxCost,
    MaxTokens,
    RunName,
    Settings,
    Yes,
    consent,
    given,
    group,
    open_run,
    say,
    say_json,
    show,
    takes,
)
from saferthoughts.cli.proof import proof
from saferthoughts.cli.release import compare, publish, pull, regenerate, release_app
from saferthoughts.cli.report import report_app
from saferthoughts.cli.review import review_app
from saferthoughts.cli.reward import reward_app
from saferthoughts.cli.runs import runs_app
from saferthoughts.cli.serve import serve_app
from saferthoughts.cli.status import status
from saferthoughts.cli.study import study_app
from saferthoughts.cli.tools import doctor, ledger_app, rehearse, student_app, teachers_app
from saferthoughts.settings import ChangeSettings, RequestSettings, RunSettings, StageSettings, TeacherSettings

app = group(
    "Make safe reasoning data, and train and measure a student on it. The stages, in the order of work:",
    completion=True,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from pipelines.runs import VERSION

        say(f"saferthoughts {VERSION}")
        raise typer.Exit


@app.callback()
def options_for_all(
    runs: Annotated[Path, typer.Option(envvar="SAFERTHOUGHTS_RUNS", help="The folder of run folders.")] = Path("runs"),
    env_file: Annotated[
        Path | None, typer.Option("--env-file", help="Read variables that are not set from this file.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Read here for all commands; `--debug` is looked up by `main`."""
    Settings.runs = runs
    if env_file is not None:
        from pipelines.settings.env_file import take

        take(env_file)


@app.command()
def demo(
    name: Annotated[str, typer.Option("--run", help="Name of the run.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the draw, the rehearsal teacher and the training.")] = 0,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train and measure a student as well.")] = True,
    student: Annotated[Path | None, typer.Option(help="A local checkpoint instead of the bundled student.")] = None,
    objective: Annotated[str, typer.Option(help="sft, or dpo: continue with preference pairs.")] = "sft",
    yes: Yes = False,
) -> None:
    """Do everything at once on a CPU: rehearsal teacher, release, small student before and after.

    Example: saferthoughts demo --no-train

    Example: saferthoughts demo --objective dpo
    """
    from saferthoughts.cli.demo import run_demo

    run_demo(Settings.runs, name, seed=seed, train=train, student=student, objective=objective, consent=consent(yes))


@app.command(name="prompts")
@takes(RunSettings, ChangeSettings)
def draw_prompts(name: RunName, as_json: AsJson = False, **options: Any) -> None:
    """Start a run: draw its prompts and fix its configuration.

    Example: saferthoughts prompts mine --harmful 40 --benign 20 --teacher deepseek

    Example: saferthoughts prompts mine --harmful-file harmbench.csv --templates-file jailbreaks.json --teacher deepseek
    """
    from saferthoughts.run import Run

    show(Run.create(name, runs=Settings.runs, **options).prompts, as_json)


@app.command()
@takes(StageSettings)
def generate(name: RunName, as_json: AsJson = False, **options: Any) -> None:
    """Ask the teachers for every variant of every prompt; asks only for what is missing.

    Example: saferthoughts generate mine --max-cost 20
    """
    show(open_run(name).generate(**options), as_json)


app.add_typer(judge_app, name="judge")


@app.command()
@takes(TeacherSettings, StageSettings, without=("allow_no_reasoning",))
def repair(
    name: RunName,
    strategy: Annotated[str | None, typer.Option(help="instruct, resample, edit or escalate.")] = None,
    attempts: Annotated[int | None, typer.Option(min=0, max=10, help="Most further attempts at a row.")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Ask the teachers again for flagged rows, with the faults named; keep the best attempt.

    Example: saferthoughts repair mine --attempts 3
    """
    show(open_run(name).repair(strategy=strategy, attempts=attempts, **options), as_json)


for command in (check, sql, duplicates, contamination, select):
    app.command()(command)


app.add_typer(dataset_app, name="dataset")
app.command()(proof)
app.add_typer(review_app, name="review")
app.add_typer(release_app, name="release")


for releasing in (publish, pull, compare, regenerate):
    app.command()(releasing)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or file.", metavar="RECIPE")] = None,
    dataset: Annotated[str | None, typer.Option(help="A release folder, or ORG/NAME@V; the recipe's if none.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the student.")] = None,
    student: Annotated[str | None, typer.Option(help="A checkpoint or ORG/NAME instead of the recipe's.")] = None,
    objective: Annotated[str | None, typer.Option(help="sft, dpo, kto, rm or grpo instead of the recipe's.")] = None,
    check_only: Annotated[bool, typer.Option("--check", help="Prove and plan; train nothing.")] = False,
    sweep: Annotated[str | None, typer.Option(help="A sweep's name or file: train all of its members.")] = None,
    launch: Annotated[str, typer.Option(help="For a sweep: what runs a member, e.g. accelerate launch ...")] = "",
    reward_judges: Annotated[
        list[str] | None,
        typer.Option("--reward-judge", help="Judge of GRPO's responses instead of the rules; repeatable."),
    ] = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    push: Annotated[str | None, typer.Option(help="ORG/NAME on the Hub, to which the student is pushed.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the recipe, as key=value; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: print plan and proof as JSON.")] = False,
) -> None:
    """Fine-tune a student on a release, after proving that its reasoning is trained on; resumes if stopped.

    Example: saferthoughts train smollm2-135m-cpu --dataset runs/demo/release --output runs/demo/model
    """
    from saferthoughts.cli.training import show_plan, train_student

    flags = {
        "objective": objective,
        "grpo.judges": json.dumps(reward_judges) if reward_judges else None,
        "grpo.max_cost": max_cost,
        "grpo.max_tokens": max_tokens,
    }
    sets = [*(f"{key}={value}" for key, value in flags.items() if value is not None), *(sets or [])]
    if as_json and not check_only:
        raise UserError("--json is for --check. Give both; a finished training leaves training.json in its folder.")
    if sweep is not None:
        from saferthoughts.cli.sweep import train_sweep

        if output is None or check_only or push is not None:
            raise UserError("A sweep needs --output FOLDER; --check and --push are for a single recipe.")
        train_sweep(sweep, recipe, dataset, student, settings=sets, output=output, launch=launch)
        return
    if check_only:
        show_plan(dataset, recipe, student, sets, as_json)
        return
    train_student(dataset, recipe, student, sets, output=output, push=push, private=private)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run, a checkpoint's folder, ORG/NAME, or the endpoint's model.")],
    base_url: BaseUrl = None,
    api_key_env: KeyVariable = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a reply.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    beside: Annotated[str | None, typer.Option(help="With --json: a checkpoint that is asked first.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Take standard input as one question, and print the replies as JSON.")
    ] = False,
) -> None:
    """Talk to a student, with its reasoning shown separately; piped, each line is a question.

    Example: saferthoughts chat runs/demo/model
    """
    from saferthoughts.cli.training import talk

    if beside is not None and (not as_json or base_url is not None):
        raise UserError("--beside goes with --json and a checkpoint. Give both, or leave it out.")
    talk(model, base_url, api_key_env, max_tokens, temperature, as_json, beside)


app.add_typer(reward_app, name="reward")
app.command(name="eval")(evaluate)
app.command()(rescore)


app.add_typer(report_app, name="report")


@app.command(name="run")
@takes(RunSettings, ChangeSettings, RequestSettings)
def run_stages(
    name: RunName,
    until: Annotated[str, typer.Option(help="The last stage to run.")] = "release",
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Run all stages from prompts to release; continues a stopped run.

    Example: saferthoughts run mine --base-url http://127.0.0.1:8000/v1 --model my-r1 --harmful 100
    """
    from saferthoughts.cli.words import stage_words
    from saferthoughts.run import Run, require_stage

    require_stage(until)
    settings_given = given(options, RunSettings)
    if settings_given or not (Settings.runs / name / "run.yaml").exists():
        run = Run.create(name, runs=Settings.runs, agree=options["agree"], **settings_given)
        if not as_json:
            say(stage_words("prompts", run.prompts))
    else:
        run = open_run(name)
    progress = None if as_json else lambda *done: say(stage_words(*done))
    done = run.run(until=until, progress=progress, **given(options, RequestSettings))
    if as_json:
        say_json({"prompts": run.prompts, **done, "report": run.report()})
    else:
        say(f"report: {run.report()}")


app.add_typer(study_app, name="study")
app.add_typer(serve_app, name="serve")
app.command()(status)
app.add_typer(runs_app, name="runs")
app.add_typer(teachers_app, name="teachers")
app.add_typer(ledger_app, name="ledger")
app.add_typer(student_app, name="student")
app.command()(rehearse)
app.command()(doctor)
