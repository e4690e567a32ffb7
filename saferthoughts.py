"""The front door: one command a stage, in the order of work. `saferthoughts --help` shows them.

Stages are imported when they are called, so that help and errors come at once and a stage needs only its own extra.
"""

import os
import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from pipelines.errors import UserError, refusal_of, unknown

if TYPE_CHECKING:
    from pipelines.runs import RunFolder

out = Console()
notes = Console(stderr=True)


# The order of work, which is also the order of help; what helps along the way comes last.
ORDER = (
    *("demo", "run", "prompts", "generate", "judge", "check", "release", "train", "eval", "report"),
    *("teachers", "ledger", "student", "rehearse", "doctor"),
)


class Stages(TyperGroup):
    """A group of commands that tells an unknown one like every other bad name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands in the order of work."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        if cmd_name not in self.commands:
            raise unknown("stage" if ctx.parent is None else f"{ctx.info_name} command", cmd_name, self.commands)
        return super().get_command(ctx, cmd_name)


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(
        cls=Stages,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        # Typer's own tracebacks print local variables, and keys are among them.
        pretty_exceptions_enable=False,
        help=help_text,
    )


app = _group("From prompts to safe reasoning data to a trained, measured student. The stages, in the order of work:")
release_app = _group("Accepted rows to a release folder with a card.")
teachers_app = _group("The endpoints that answer prompts.")
ledger_app = _group("The answered requests of a run.")
student_app = _group("The small student that trains on a CPU.")

RunName = Annotated[str, typer.Argument(help="Name of the run: a folder under --runs.", metavar="RUN")]


class Settings:
    """What the options before the command said."""

    runs = Path("runs")


@app.callback()
def options_for_all(
    runs: Annotated[Path, typer.Option(envvar="SAFERTHOUGHTS_RUNS", help="The folder of run folders.")] = Path("runs"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read here for all commands; `--debug` is looked up by `main`."""
    Settings.runs = runs


def _open(name: str) -> "RunFolder":
    from pipelines.runs import RunFolder

    return RunFolder.open(Settings.runs, name)


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _note(text: str) -> None:
    """What stands beside a result: to stderr, so that the result can be piped."""
    notes.print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def demo(
    name: Annotated[str, typer.Option("--run", help="Name of the run.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the draw, the rehearsal teacher and the training.")] = 0,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Train and measure a student as well.")] = True,
    student: Annotated[Path | None, typer.Option(help="A local checkpoint in place of the bundled student.")] = None,
) -> None:
    """The whole way at once, on a CPU: rehearsal teacher, release, small student before and after.

    Example: saferthoughts demo --no-train
    """
    from service.demo import run_demo

    run_demo(Settings.runs, name, seed, train, student, out)


ConfigFile = Annotated[Path | None, typer.Option("--config", help="A run.yaml to begin with.")]
Source = Annotated[str | None, typer.Option("--prompts", help="'bundled', a folder, or a file of prompts.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="harmful or benign, for a file that does not say.")]
Harmful = Annotated[int | None, typer.Option(help="How many harmful prompts; all combinations if not given.")]
Benign = Annotated[int | None, typer.Option(help="How many benign prompts; all if not given.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the draw.")]
VariantNames = Annotated[list[str] | None, typer.Option("--variant", help="A variant to make; repeat for several.")]
TeacherName = Annotated[str | None, typer.Option("--teacher", help="Who answers: a name of `teachers list`.")]
GeneralName = Annotated[str | None, typer.Option("--general-teacher", help="Who answers short and template instead.")]
TeacherFile = Annotated[Path | None, typer.Option("--teachers", help="Your own teachers.yaml.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="An endpoint, in place of a named teacher.")]
ModelName = Annotated[str | None, typer.Option("--model", help="The model to ask for at --base-url.")]
KeyVariable = Annotated[str | None, typer.Option("--api-key-env", help="Environment variable with its key.")]
Instructions = Annotated[
    list[str] | None,
    typer.Option("--instruction", help="A variant's wording, as VARIANT=FILE; repeatable."),
]
MaxCost = Annotated[float | None, typer.Option(min=0, help="US dollars that the run may cost, all calls together.")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="Tokens that the run may take, all calls together.")]
Reuse = Annotated[list[str] | None, typer.Option("--reuse", help="A run whose answers may be taken over; repeatable.")]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray: on a cluster.")]
RayAddress = Annotated[str | None, typer.Option(help="HOST:PORT or auto; a cluster on this machine if not given.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any key of run.yaml, as key=value; repeatable.")]


@app.command()
def prompts(
    name: RunName,
    config: ConfigFile = None,
    source: Source = None,
    kind: KindOption = None,
    harmful: Harmful = None,
    benign: Benign = None,
    seed: SeedOption = None,
    variants: VariantNames = None,
    teacher: TeacherName = None,
    general_teacher: GeneralName = None,
    teachers: TeacherFile = None,
    base_url: BaseUrl = None,
    model: ModelName = None,
    api_key_env: KeyVariable = None,
    instructions: Instructions = None,
    sets: Sets = None,
) -> None:
    """Start a run: draw its prompts and settle its configuration.

    Example: saferthoughts prompts mine --harmful 40 --benign 20 --teacher deepseek
    """
    from pipelines.options import Options
    from service.stages import start_run

    options = Options(
        config, source, kind, harmful, benign, seed, tuple(variants or ()), teacher, general_teacher, teachers,
        base_url, model, api_key_env, tuple(instructions or ()), tuple(sets or ()),
    )  # fmt: skip
    _say(start_run(Settings.runs, name, options).said)


@app.command()
def generate(
    name: RunName,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    reuse: Reuse = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
) -> None:
    """Ask the teachers for every variant of every prompt; asks only for what is missing.

    Example: saferthoughts generate mine --max-cost 20
    """
    from pipelines.engine import Engine
    from service.stages import generate_run

    others = [_open(other) for other in reuse or ()]
    _say(generate_run(_open(name), max_cost, max_tokens, others, Engine(engine, ray_address)))


@app.command()
def judge(name: RunName) -> None:
    """Look for the five risky patterns and for refusals in every response."""
    _stage("judge", name)


@app.command()
def check(name: RunName) -> None:
    """Run the quality queries: accepted rows, and rejected rows with reasons."""
    _stage("check", name)


def _stage(stage: str, name: str) -> None:
    from service.stages import run_stage

    _say(run_stage(stage, _open(name)))


app.add_typer(release_app, name="release")


@release_app.command()
def build(name: RunName) -> None:
    """Write runs/RUN/release: a config a variant, a card, checksums."""
    _stage("release", name)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or file.", metavar="RECIPE")],
    dataset: Annotated[Path, typer.Option(help="A release folder.")],
    output: Annotated[Path, typer.Option(help="Where the student goes.")],
    student: Annotated[Path | None, typer.Option(help="A local checkpoint to train, in place of the recipe's.")] = None,
    sets: Sets = None,
) -> None:
    """Fine-tune a student on a release, having proved first that its reasoning is trained on.

    Example: saferthoughts train smollm2-135m-cpu --dataset runs/demo/release --output runs/demo/model
    """
    from service.students import train_student

    out.print(train_student(recipe, dataset, output, student, sets or []))


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A run (its student before and after), or a checkpoint's folder.")],
    output: Annotated[Path | None, typer.Option(help="For a checkpoint: where logs and scores go.")] = None,
    student: Annotated[Path | None, typer.Option(help="For a run: the checkpoint that was trained.")] = None,
) -> None:
    """Measure refusals and reasoning on held-out and swapped prompts, with intervals."""
    from service.students import evaluate_checkpoint, evaluate_run

    if (Settings.runs / model / "manifest.json").exists():
        out.print(evaluate_run(_open(model), student))
    else:
        out.print(evaluate_checkpoint(Path(model), output))


@app.command()
def report(name: RunName) -> None:
    """Write runs/RUN/report.html from what the run has so far."""
    from curation.report import write_report

    _say(str(write_report(_open(name))))


@app.command()
def run(
    name: RunName,
    until: Annotated[str, typer.Option(help="The last stage to run.")] = "release",
    config: ConfigFile = None,
    source: Source = None,
    kind: KindOption = None,
    harmful: Harmful = None,
    benign: Benign = None,
    seed: SeedOption = None,
    variants: VariantNames = None,
    teacher: TeacherName = None,
    general_teacher: GeneralName = None,
    teachers: TeacherFile = None,
    base_url: BaseUrl = None,
    model: ModelName = None,
    api_key_env: KeyVariable = None,
    instructions: Instructions = None,
    sets: Sets = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
) -> None:
    """All stages from prompts to release; goes on where an earlier call was stopped.

    Example: saferthoughts run mine --base-url http://127.0.0.1:8000/v1 --model my-r1 --harmful 100
    """
    from pipelines.engine import Engine
    from pipelines.options import Options
    from service.stages import run_all

    options = Options(
        config, source, kind, harmful, benign, seed, tuple(variants or ()), teacher, general_teacher, teachers,
        base_url, model, api_key_env, tuple(instructions or ()), tuple(sets or ()),
    )  # fmt: skip
    done = run_all(Settings.runs, name, options, until, _say, Engine(engine, ray_address))
    _say(f"report: {_report_of(done)}")


def _report_of(folder: "RunFolder") -> Path:
    from curation.report import write_report

    return write_report(folder)


app.add_typer(teachers_app, name="teachers")
app.add_typer(ledger_app, name="ledger")
app.add_typer(student_app, name="student")


@teachers_app.command(name="list")
def list_teachers(teachers: TeacherFile = None) -> None:
    """Every teacher by name: model, endpoint, and whether its key is set."""
    from pipelines.doctor import teacher_table

    out.print(teacher_table(teachers))


@teachers_app.command(name="test")
def probe_teacher(
    name: Annotated[str | None, typer.Argument(help="A name of `teachers list`.", metavar="NAME")] = None,
    teachers: TeacherFile = None,
    base_url: BaseUrl = None,
    model: ModelName = None,
    api_key_env: KeyVariable = None,
    sets: Sets = None,
) -> None:
    """Ask one question and show what came back: reasoning and where it was, tokens, latency, price.

    Example: saferthoughts teachers test --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B
    """
    from pipelines.options import Options
    from pipelines.teacher_probe import chosen, probe, probe_table

    options = Options(
        teacher=name, teachers=teachers, base_url=base_url, model=model, api_key_env=api_key_env, sets=tuple(sets or ())
    )
    out.print(probe_table(probe(*chosen(options), Settings.runs)))


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
    from pipelines.serving import run_server
    from pipelines.vllm_command import options_of, serve_command

    command = serve_command(model, port, options_of(sets or ()))
    _say(command.line())
    _note(command.note)
    if start:
        raise typer.Exit(run_server(command, _note))
    _note(f"Once it runs: saferthoughts teachers test --base-url {command.base_url} --model {shlex.quote(model)}")


@ledger_app.command()
def show(name: RunName) -> None:
    """What a run asked: answers, tokens, cost and time by model, and what failed last."""
    from service.ledgers import ledger_table

    out.print(ledger_table(_open(name)))


@ledger_app.command()
def export(name: RunName, file: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file to write.")]) -> None:
    """Write every answered request of a run to a file."""
    from service.ledgers import export_ledger

    _say(f"{export_ledger(_open(name), file)} answers written to {file}")


@ledger_app.command()
def prune(
    name: RunName, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many.")] = False
) -> None:
    """Delete answers that the run's present prompts and configuration do not ask for."""
    from service.ledgers import prune_ledger

    _say(prune_ledger(_open(name), dry_run))


@student_app.command()
def fetch() -> None:
    """Download the bundled student once, check it, and keep it in the cache."""
    from training.student import fetch_student

    _say(str(fetch_student()))


@app.command()
def rehearse(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any free one.")] = 8399,
    style: Annotated[str, typer.Option(help="Where reasoning goes.")] = "reasoning_content",
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
    """Serve the rehearsal teacher alone: an OpenAI-compatible stand-in for a model, for trying things out.

    Example: saferthoughts rehearse --port 8399 --style inline --fail-429 0.1
    """
    from pipelines.config import validated
    from pipelines.rehearsal.faults import RehearsalSettings
    from pipelines.rehearsal.server import serve

    settings = {
        "port": port, "style": style, "seed": seed, "delay": delay, "heavy_tail": heavy_tail, "fail_429": fail_429,
        "fail_500": fail_500, "hang": hang, "cut": cut, "truncate": truncate,
    }  # fmt: skip
    serve(validated(RehearsalSettings, settings, "the options"), _say)


@app.command()
def doctor() -> None:
    """What is installed, what is missing for which stage, and whether a GPU, sandbox, token or endpoint is there."""
    from pipelines.doctor import examine

    out.print(examine())


def main() -> None:
    """Run a command: 0 done, 1 incomplete, 2 bad input (one line, no traceback), 130 interrupted."""
    # Read once, when torch is loaded: its idle threads then sleep. Spinning, they slow every other process down, and
    # themselves 4 to 10 times where a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(_run())


def _run() -> int:
    try:
        return app(standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return _refuse("Interrupted. Run the same command again to go on.", 130)
    except typer.TyperException as error:
        return _refuse(_with_value(error.format_message()), 2)
    except Exception as error:
        told = refusal_of(error)
        if told is None:
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        return _refuse(told, error.exit_code if isinstance(error, UserError) else 2)


def _with_value(message: str) -> str:
    """Typer names the option whose value it could not read; add the value."""
    option = re.match(r"Invalid value for '(--[\w-]+)'", message)
    if option and option.group(1) in sys.argv[:-1]:
        return f"{message} (it is '{sys.argv[sys.argv.index(option.group(1)) + 1]}')."
    return message


def _refuse(message: str, code: int) -> int:
    """Print to stderr: an error as one line, a help text (which is what a bare group gives) as it is."""
    print(message if message.startswith("Usage:") else f"saferthoughts: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
