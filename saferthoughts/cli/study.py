"""Commands of studies: `saferthoughts study plan|run|status|report STUDY`.

Read a study's file; write what `saferthoughts/studies/` does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pipelines.command_line import typed_command
from pipelines.errors import Incomplete, UserError
from saferthoughts.cli.options import AsJson, Settings, group, note, out, say, say_json

if TYPE_CHECKING:
    from saferthoughts.studies.artifacts import Artifacts
    from saferthoughts.studies.steps import Study

study_app = group("Experiments of many runs, students and evaluations, each one file.")

Name = Annotated[str, typer.Argument(help="A study of `study list`, or a YAML file.", metavar="STUDY")]
Students = Annotated[list[str] | None, typer.Option("--student", help="Only this student; repeatable.")]
Gpus = Annotated[
    str | None, typer.Option(help="GPUs to use, as 0,1,2, or 4x80 for four of 80 GB; all visible ones if not given.")
]
Kept = Annotated[
    str | None,
    typer.Option("--artifacts", help="hub:ORG/NAME: a private repository that shares finished steps."),
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any key of the study, as key=value; repeatable.")]


def _study(ctx: typer.Context) -> "Study":
    """The study of a command's parameters; each of its steps has to be what the command line understands."""
    from saferthoughts.studies.steps import open_study

    root = ctx.find_root()

    def parse(words: Sequence[str]) -> Mapping[str, Any]:
        context: Any = root
        rest = list(words)
        try:
            while hasattr(context.command, "commands"):
                name, command, rest = context.command.resolve_command(context, rest)
                context = command.make_context(name, rest, parent=context)
                rest = [*context._protected_args, *context.args]
        except typer.TyperException as error:
            raise UserError(f"The study's command '{' '.join(words[:2])}': {error.format_message()}") from None
        return dict(context.params)

    given = ctx.params
    return open_study(given["name"], Settings.runs, parse, given["students"] or (), given["sets"] or ())


@study_app.command(name="list")
def list_studies() -> None:
    """The studies that come with the project."""
    from saferthoughts.studies.spec import load_study, study_names

    table = Table(box=None, show_header=False)
    for name in study_names():
        table.add_row(Text(name), Text(load_study(name).title))
    out.print(table)


@study_app.command()
def plan(
    ctx: typer.Context,
    name: Name,
    students: Students = None,
    sets: Sets = None,
    gpus: Gpus = None,
    artifacts: Kept = None,
) -> None:
    """Every step with its commands, requests, dollars and GPU-hours, what is missing, what it can show. Begins nothing.

    Example: saferthoughts study plan table1 --student DeepSeek-R1-Distill-Qwen-7B
    """
    from saferthoughts.studies.placement import pool_of
    from saferthoughts.studies.planning import plan_lines

    study = _study(ctx)
    kept = _artifacts(artifacts, study)
    for line in plan_lines(study, pool_of(gpus), kept.names() if kept else ()):
        say(line)


@study_app.command(name="run")
def run_study(
    ctx: typer.Context,
    name: Name,
    students: Students = None,
    sets: Sets = None,
    gpus: Gpus = None,
    artifacts: Kept = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=256, help="Steps at once; one for each GPU, 64 on Slurm.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="slurm: submit steps as jobs; local does the same on this machine.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--slurm", help="A parameter of submitit, such as partition=gpu; repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start steps again whose file or options have changed.")] = False,
) -> None:
    """Do what is not done yet, and print the table. Stopped or killed, the same command goes on.

    Example: saferthoughts study run quick
    """
    from pipelines.settings.overrides import settings_of
    from saferthoughts.studies.placement import pool_of
    from saferthoughts.studies.planning import placed_servers
    from saferthoughts.studies.work import begin, cluster_of, run_steps

    study = _study(ctx)
    given = {one.key: one.value for one in settings_of(parameters or (), "partition=gpu")}
    if given and cluster is None:
        raise UserError("--slurm is for --cluster slurm. Give both, or neither.")
    executor = None if cluster is None else cluster_of(cluster, study.folder / "jobs", given)
    pool, kept = pool_of(gpus), _artifacts(artifacts, study)
    # A cluster's jobs are on other machines; servers that they ask are the user's to start.
    placed = placed_servers(study, pool, kept.names() if kept else ()) if cluster is None else {}
    if kept:
        kept.prepare()
    begin(study, yes)
    ended = run_steps(study, jobs, pool, placed, executor, note, kept)
    unsent = kept.close() if kept else []
    if any(step.kind == "eval" or step.tables for key, step in study.steps.items() if ended[key].state == "done"):
        _print_report(study, None)
    failed = [f"{study.steps[key].label}: {one.reason}" for key, one in ended.items() if one.state == "failed"]
    left = sum(not one.settled for one in ended.values())
    for line in [*failed, *unsent]:
        note(line)
    if left:
        raise Incomplete(
            f"{len(failed)} of {len(ended)} steps failed and {left - len(failed)} wait for them; logs are in "
            f"{study.folder.parent / 'steps'}. Mend what the lines above say, and go on with: {typed_command()}"
        )
    if unsent:
        raise Incomplete(f"All is done here, and {len(unsent)} steps are not kept. Send them with: {typed_command()}")


def _artifacts(text: str | None, study: "Study") -> "Artifacts | None":
    if text is None:
        return None
    from saferthoughts.studies.artifacts import Artifacts

    return Artifacts(text, study, note)


@study_app.command()
def status(
    ctx: typer.Context, name: Name, students: Students = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """How each step of a study is; reads files only, and may be asked at any time.

    Example: saferthoughts study status quick
    """
    from saferthoughts.studies.work import state_of

    steps = _study(ctx).steps
    if as_json:
        labels = {name: step.label for name, step in steps.items()}
        say_json(
            [
                {"step": step.label, "kind": step.kind, "needs": [labels[one] for one in step.needs]}
                | asdict(state_of(step))
                for step in steps.values()
            ]
        )
        return
    found = {step.label: state_of(step) for step in steps.values()}
    table = Table("step", "state", "seconds", "ended", box=None)
    for label, one in found.items():
        state = f"{one.state}: {one.reason}" if one.reason else one.state
        table.add_row(*map(Text, (label, state, f"{one.seconds:.0f}" if one.seconds else "", one.at)))
    out.print(table)
    counts = Counter(one.state for one in found.values())
    say(", ".join(f"{count} {state}" for state, count in counts.items()) + f" of {len(found)} steps")


@study_app.command()
def report(
    ctx: typer.Context,
    name: Name,
    students: Students = None,
    sets: Sets = None,
    output: Annotated[Path | None, typer.Option(help="A folder; studies/STUDY if not given.")] = None,
) -> None:
    """The study's table beside the paper's: rates, intervals, differences, what differs and what was not measured.

    Example: saferthoughts study report quick
    """
    _print_report(_study(ctx), output)


def _print_report(study: "Study", output: Path | None) -> None:
    from saferthoughts.studies.reporting import write_study_report

    made = write_study_report(study, output or study.folder)
    for cells in made.tables:
        table = Table(title=Text(cells.title), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, head in enumerate(cells.head):
            table.add_column(Text(head), justify="right" if number else "left", overflow="fold")
        for row in cells.rows:
            table.add_row(*(Text(cell.replace(" | ", "\n")) for cell in row))
        out.print(table)
        for line in cells.notes:
            say(line)
    say("What differs from the paper, and what this does not show:")
    for line in made.honesty:
        say(f"- {line}")
    say(str(made.page))
