"""How the comparison of two releases is told: `saferthoughts compare A B`."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from service.door import out, say


def tell_comparison(before: Path, after: Path, file: Path | None) -> None:
    """Print the comparison, and write it as JSON where a file is named."""
    from cards.compare import compare, proposed
    from pipelines.runs import write_json

    found = compare(before, after)
    if file is not None:
        write_json(file, found.plain())
    table = Table(title=f"{found.versions[0]} to {found.versions[1]}", box=None)
    for column in ("config", "rows before", "after", "added", "removed", "changed"):
        table.add_column(column, justify="left" if column == "config" else "right")
    for one in found.rows:
        counts = (one.before, one.after, one.added, one.removed, one.changed)
        table.add_row(Text(one.config), *map(str, counts))
    out.print(table)
    for drift in found.drifts:
        if drift.apart:
            old, new = drift.before, drift.after
            say(
                f"{drift.config}: {drift.figure} {old.rate:.3g} [{old.low:.3g}, {old.high:.3g}] to "
                f"{new.rate:.3g} [{new.low:.3g}, {new.high:.3g}]"
            )
    for balance in found.balances:
        if balance.p is not None and balance.p < 0.05:
            moved = f"{100 * balance.distance:.0f} % of the rows"
            say(f"{balance.config}: {moved} lie in another {balance.dimension} (p = {balance.p:.2g})")
    for what in found.meaning:
        say(what)
    say(f"that makes version {proposed(found.versions[0], found.step)} ({found.step or 'nothing differs'})")
