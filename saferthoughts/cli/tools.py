"""Commands that help along the way: teachers, ledgers, the small student, the rehearsal teacher, the doctor.

Each imports what it needs when it is called; `saferthoughts/cli/app.py` hangs them on the front door.
"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from saferthoughts.cli.options import (
    AsJson,
    BaseUrl,
    KeyVariable,
    ModelName,
    RunName,
    Sets,
    Settings,
    TeacherFile,
    group,
    note,
    open_run,
    out,
    say,
    say_json,
)
from saferthoughts.cli.options import show as show_result

teachers_app = group("The endpoints that answer prompts.")
ledger_app = group("The answered requests of a run.")
student_app = group("Students: fetch the small one, push one, measure how likely one finds a run's rows.")


@teachers_app.command(name="list")
def list_teachers(teachers: TeacherFile = None, as_json: AsJson = False) -> None:
    """Every teacher by name: model, endpoint, and whether its key is set."""
    from pipelines.doctor import listed_teachers, teacher_table

    show_result(listed_teachers(teachers), as_json, teacher_table)


@teachers_app.command(name="test")
def probe_teacher(
    name: Annotated[str | None, typer.Argument(help="A name of `teachers list`.", metavar="NAME")] = None,
    teachers: TeacherFile = None,
    base_url: BaseUrl = None,
    model: ModelName = None,
    api_key_env: KeyVariable = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question and show what came back: reasoning and where it was, tokens, latency, price.

    Example: saferthoughts teachers test --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B
    """
    from pipelines.settings.options import Options
    from pipelines.teachers.probe import chosen, probe, probe_table

    options = Options(
        teacher=name, teachers=teachers, base_url=base_url, model=model, api_key_env=api_key_env, sets=tuple(sets or ())
    )
    show_result(probe(*chosen(options), Settings.runs), as_json, probe_table)


@teachers_app.command(name="serve")
def serve_teacher(
    model: Annotated[str, typer.Argument(help="A Hub id, or a folder with a checkpoint.", metavar="MODEL")],
    start: Annotated[bool, typer.Option("--run", help="Start the server, not only print its command.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Any option of `vllm serve`, as key=value; repeatable.")
    ] = None,
) -> None:
    """Print the `vllm serve` command for a model, with its reasoning parser; with --run, run it.

    Example: saferthoughts teachers serve Qwen/Qwen3-8B --set tensor-parallel-size=2
    """
    from pipelines.teachers.vllm_command import options_of, serve_command
    from pipelines.teachers.vllm_server import run_server

    command = serve_command(model, port, options_of(sets or ()))
    say(command.line())
    note(command.note)
    if start:
        raise typer.Exit(run_server(command, note))
    note(f"Once it runs: saferthoughts teachers test --base-url {command.base_url} --model {shlex.quote(model)}")


@ledger_app.command()
def show(name: RunName, as_json: AsJson = False) -> None:
    """What a run asked: answers, tokens, cost and time by model, and what failed last."""
    from saferthoughts.cli.ledgers import ledger_table

    show_result(open_run(name).spending(), as_json, ledger_table)


@ledger_app.command()
def export(name: RunName, file: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file to write.")]) -> None:
    """Write every answered request of a run to a file."""
    say(f"{open_run(name).export_answers(file)} answers written to {file}")


@ledger_app.command()
def prune(
    name: RunName, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print their number.")] = False
) -> None:
    """Delete answers that the run's present prompts and configuration do not ask for."""
    found = open_run(name).prune(dry_run=dry_run)
    if dry_run:
        say(f"{found.idle} answers are not asked for any more and would be deleted; {found.kept} would stay")
    else:
        say(f"{found.idle} answers deleted, {found.kept} kept")


@ledger_app.command()
def forget(name: RunName) -> None:
    """Let requests that a teacher refused for good be asked once more.

    Example: saferthoughts ledger forget mine
    """
    count = open_run(name).forget_refusals()
    say(f"{count} refused requests will be asked once more: saferthoughts generate {name}")


@student_app.command()
def fetch() -> None:
    """Download the bundled student once, check it, and keep it in the cache."""
    from training.students.student import fetch_student

    say(str(fetch_student()))


@student_app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A model that was trained here.", metavar="MODEL")],
    repo: Annotated[str, typer.Option(help="ORG/NAME on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
) -> None:
    """Put a finished student on the Hub, and read everything back."""
    from cards.hub.push_model import check_pushable, push_model
    from saferthoughts.cli.words import words_of

    check_pushable(repo)
    say(words_of(push_model(folder, repo, private)))


@student_app.command()
def nll(
    name: RunName,
    student: Annotated[
        str | None, typer.Option(help="A checkpoint or ORG/NAME; that of the last call if none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how likely a student finds each accepted response: the table student_nll, for `select --by`.

    Example: saferthoughts student nll demo --student runs/demo/model
    """
    show_result(open_run(name).student_nll(student), as_json)


def rehearse(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any free one.")] = 8399,
    style: Annotated[str, typer.Option(help="Place of the reasoning in a reply.")] = "reasoning_content",
    seed: Annotated[int, typer.Option(help="Another seed gives other answers.")] = 0,
    delay: Annotated[float, typer.Option(min=0, help="Mean seconds an answer takes.")] = 0.0,
    heavy_tail: Annotated[
        bool, typer.Option(help="Draw delays from a heavy-tailed distribution of that mean.")
    ] = False,
    fail_429: Annotated[float, typer.Option("--fail-429", help="Share of attempts answered 429.")] = 0.0,
    fail_500: Annotated[float, typer.Option("--fail-500", help="Share of attempts answered 500.")] = 0.0,
    hang: Annotated[float, typer.Option(help="Share of attempts never answered.")] = 0.0,
    cut: Annotated[float, typer.Option(help="Share of attempts whose connection is cut.")] = 0.0,
    truncate: Annotated[float, typer.Option(help="Share of answers cut off in the middle.")] = 0.0,
) -> None:
    """Serve the rehearsal teacher: an OpenAI-compatible program that replaces a model, for trials.

    Example: saferthoughts rehearse --port 8399 --style inline --fail-429 0.1
    """
    from pipelines.rehearsal.faults import RehearsalSettings
    from pipelines.rehearsal.server import serve
    from pipelines.settings.parts import validated

    settings = {
        "port": port, "style": style, "seed": seed, "delay": delay, "heavy_tail": heavy_tail, "fail_429": fail_429,
        "fail_500": fail_500, "hang": hang, "cut": cut, "truncate": truncate,
    }  # fmt: skip
    serve(validated(RehearsalSettings, settings, "the options"), say)


def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, what each stage lacks, and whether a GPU, sandbox, token or endpoint is available."""
    from pipelines.doctor import examine, findings

    if as_json:
        say_json(findings())
    else:
        out.print(examine())
