"""Commands of reporting: `saferthoughts report RUN` on a run, `saferthoughts report eval PATH...` on evaluations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from saferthoughts.cli.options import AsJson, RunName, Shortened, group, note, open_run, out, say

if TYPE_CHECKING:
    from eval.report.figures import Section

# What a terminal of 80 columns shows.
_MOST_COLUMNS = 6

report_app = group("Write reports of a run or of evaluations as pages: report RUN.", Shortened)


@report_app.command(name="run")
def report(name: RunName) -> None:
    """Write runs/RUN/report.html from what the run has so far. `report RUN` is short for it."""
    say(str(open_run(name).report()))


@report_app.command(name="eval")
def report_eval(
    paths: Annotated[list[Path], typer.Argument(help="Folders with a results.json.", metavar="PATH...")],
    output: Annotated[
        Path | None, typer.Option(help="Output folder; PATH/report for one evaluation, ./eval-report for several.")
    ] = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="Add Inspect's viewer with every transcript.")] = False,
    as_json: AsJson = False,
) -> None:
    """The study's table of one or more evaluations, with intervals, the trade-off, comparisons and answers.

    Example: saferthoughts report eval runs/*/eval --output runs/eval-report
    """
    from eval.report.page import read_sources, write_evaluation_report

    sources = read_sources(paths)
    folder = output or (sources[0].path / "report" if len(sources) == 1 else Path("eval-report"))
    report = write_evaluation_report(sources, folder, bundle)
    for warning in report.warnings:
        note(warning)
    if as_json:
        say((folder / "report.json").read_text(encoding="utf-8").rstrip())
        return
    for section in report.sections:
        tasks = [task for task in section.tasks if any(task in row.figures for row in section.rows)]
        for at in range(0, len(tasks), _MOST_COLUMNS):
            out.print(_table(section, tasks[at : at + _MOST_COLUMNS]))
    say(str(folder / "report.html"))


def _table(section: "Section", tasks: list[str]) -> Table:
    """Rows as in the study's table, with some of its columns; names are hostile, so all cells are plain."""
    from eval.report.figures import COLUMNS
    from eval.report.words import corrected, measured

    table = Table(title=section.title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for task in tasks:
        table.add_column(Text(COLUMNS.get(task, task)), justify="right", no_wrap=True)
    for row in section.rows:
        figures = [row.figures.get(task) for task in tasks]
        cells = [measured(figure).replace(" [", "\n[") for figure in figures]
        for at, figure in enumerate(figures):
            if figure is not None and (words := corrected(figure)):
                cells[at] += "\n" + words.replace(" [", "\n[").replace("], ", "]\n")
        table.add_row(Text(row.name), *map(Text, cells))
    return table
