"""Training a sweep: every member, then the table. The command is `saferthoughts train --sweep`."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipelines.errors import Incomplete
from pipelines.settings.overrides import settings_of
from saferthoughts.cli.options import note, out, say


def train_sweep(
    sweep: str,
    recipe: str | None,
    dataset: str | None,
    student: str | None,
    *,
    settings: Iterable[str],
    output: Path,
    launch: str,
) -> None:
    """Train every member of a sweep and print a table of them.

    Raises:
        Incomplete: some members failed; the table says why.
    """
    from training.student import check_named
    from training.sweep import load_sweep, members_of
    from training.sweep_run import run_sweep, table_of

    members = members_of(load_sweep(sweep), recipe, dataset, student, settings_of(settings, "epochs=2"))
    for wanted in {member.recipe.student for member in members}:
        check_named(wanted)
    outcomes = run_sweep(members, output, shlex.split(launch) or [sys.executable], note)
    names, lines = table_of(outcomes)
    table = Table(*names, box=None)
    for line in lines:
        table.add_row(*map(Text, line))
    out.print(table)
    say(f"{output / 'results.md'}, {output / 'results.json'}")
    failed = sum(one.state == "failed" for one in outcomes)
    if failed:
        raise Incomplete(f"{failed} of {len(outcomes)} members failed; the same command tries them again.")
