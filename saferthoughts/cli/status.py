"""`saferthoughts status`: where runs stand."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipelines.errors import visible
from saferthoughts.cli.options import AsJson, Settings, note, out, say, say_json


def status(
    name: Annotated[str | None, typer.Argument(help="One run; all of them if not given.", metavar="[RUN]")] = None,
    as_json: AsJson = False,
) -> None:
    """Show each run's state, what it waits for, its cost, and the command that continues it.

    Example: saferthoughts status
    """
    from saferthoughts.status import status as look

    found = look(name, runs=Settings.runs)
    if as_json:
        say_json(found)
        return
    if not found:
        note(f"There is no run under {Settings.runs}/ yet. Start one: saferthoughts demo")
        return
    readable = [one for one in found if not one.problem]
    if readable:
        table = Table("run", *(step.name for step in readable[0].funnel), "US dollars", box=None)
        for one in readable:
            cells = ("" if step.count is None else f"{step.count}" for step in one.funnel)
            table.add_row(Text(one.name), *cells, "no price" if one.cost is None else f"{one.cost:.2f}")
        out.print(table)
    for one in found:
        if one.problem:
            say(visible(f"{one.name}: its files cannot be read. {one.problem}"))
        elif one.at_work:
            say(f"{one.name}: at work ({', '.join(one.at_work)})")
        elif one.command:
            say(f"{one.name} waits for {one.waits_for}: {one.command}")
        else:
            say(f"{one.name}: nothing is missing")
