"""Commands that keep run folders: `saferthoughts runs rename|remove|export|import`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.errors import UserError
from saferthoughts.cli.options import RunName, Settings, TeacherFile, group, note, open_folder, open_run, say

runs_app = group("Rename, remove, export and import run folders.")
Agreed = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@runs_app.command()
def rename(name: RunName, to: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")]) -> None:
    """Give a run another name; a study that names it goes on looking for the old one.

    Example: saferthoughts runs rename demo first-try
    """
    run = open_run(name)
    run.rename(to)
    say(f"{name} is {run.path} now")


@runs_app.command()
def remove(name: RunName, yes: Agreed = False) -> None:
    """Delete a run with all that it holds.

    Example: saferthoughts runs remove demo
    """
    from pipelines.run_archives import holdings
    from pipelines.run_archives import remove as delete

    run = open_folder(name)
    held = holdings(run)
    listed = ", ".join(f"{one.name} ({one.size:,} bytes)" for one in held)
    note(f"{run.path} holds {sum(one.size for one in held):,} bytes: {listed}")
    if not yes and typer.prompt(f"Type {name} to delete it", err=True) != name:
        raise UserError(f"Nothing was deleted: that is not {name}.")
    delete(run)
    say(f"{run.path} is deleted")


@runs_app.command()
def export(
    name: RunName, file: Annotated[Path | None, typer.Argument(help="The file; NAME.run.zip if not given.")] = None
) -> None:
    """Write a run as one zip file: settings, answers, tables and release; no models, evaluations or logs.

    Example: saferthoughts runs export demo demo.run.zip
    """
    path = open_run(name).export(file or Path(f"{name}.run.zip"))
    say(f"{path}: {path.stat().st_size:,} bytes")


@runs_app.command(name="import")
def import_run(
    file: Annotated[Path, typer.Argument(help="An archive of `runs export`.")],
    name: Annotated[str | None, typer.Option("--run", help="Name of the run; the archive's if not given.")] = None,
    teachers: TeacherFile = None,
    yes: Agreed = False,
) -> None:
    """Make a run of an archive; one that is no run's is refused whole.

    Example: saferthoughts runs import demo.run.zip --run again
    """
    from saferthoughts.run import Run

    run = Run.from_archive(file, name, teachers=teachers, runs=Settings.runs, agree=yes)
    say(f"{run.path} is there. It goes on with: saferthoughts run {run.name}")
