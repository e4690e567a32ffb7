"""Training a sweep: every member, then the table. The command is `saferthoughts train --sweep`."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pipelines.errors import Incomplete
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
    from saferthoughts.training import sweep as train_members
    from training.sweeps.sweep_run import table_of

    outcomes = train_members(
        sweep, recipe, dataset, output=output, student=student, settings=list(settings), launch=launch, progress=note
    )
    names, lines = table_of(outcomes)
    table = Table(*names, box=None)
    for line in lines:
        table.add_row(*map(Text, line))
    out.print(table)
    say(f"{output / 'results.md'}, {output / 'results.json'}")
    failed = sum(one.state == "failed" for one in outcomes)
    if failed:
        raise Incomplete(f"{failed} of {len(outcomes)} members failed; the same command tries them again.")
