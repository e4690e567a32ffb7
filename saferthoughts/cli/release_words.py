"""Helpers of the commands of releases: addresses, consent, and a comparison as tables.

Wherever a release folder is asked for, ORG/NAME@VERSION will do: it is pulled into a cache.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError
from saferthoughts.cli.options import figures, note, out, say

if TYPE_CHECKING:
    from cards.compare import ReleaseComparison


def release_folder(text: str) -> Path:
    """A release folder by its path or its address on the Hub."""
    from saferthoughts.release import release_path

    return release_path(text, say)


def agreed(yes: bool) -> Callable[[str], None]:
    """Shows what will be asked of whom, and asks whether that is wanted.

    Raises:
        UserError: it is not, or there is nobody to answer and no --yes.
    """

    def ask(text: str) -> None:
        note(text)
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UserError("Nothing was begun: nobody is here to agree to what is shown. In a script give --yes.")
        if not typer.confirm("Ask them in these words?", err=True):
            raise UserError("Nothing was begun.")

    return ask


def new_run_name(release: str, teacher: str | None) -> str:
    """A run's name from a release and who answers now: `demo-deepseek` of runs/demo/release or me/demo@v1.0.0."""
    path = Path(release)
    named = path.resolve().parent if path.exists() and path.name == "release" else path
    words = f"{named.name.partition('@')[0]}-{teacher or 'again'}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words).lstrip("._-")[:64]


def print_comparison(found: "ReleaseComparison") -> None:
    """Print what differs between two releases."""
    from cards.compare import in_words, moved, proposed

    columns = ("config", "rows before", "after", "added", "removed", "changed")
    table = figures(*columns, title=f"{found.versions[0]} to {found.versions[1]}")
    for one in found.rows:
        counts = (one.before, one.after, one.added, one.removed, one.changed)
        table.add_row(Text(one.config), *map(str, counts))
    out.print(table)
    drifted = [drift for drift in found.drifts if drift.apart]
    if drifted:
        table = Table("config", "figure", "before", "after", title="drift, with 95 % intervals", box=None)
        for drift in drifted:
            table.add_row(*(Text(part) for part in (drift.config, drift.figure, *in_words(drift))))
        out.print(table)
    measured = [drift for drift in found.drifts if drift.measured]
    say(f"{len(drifted)} of {len(measured)} figures drifted (95 % intervals that leave each other out)")
    for drift in measured:
        if any(drift.unscored):
            before, after = in_words(drift)
            say(f"{drift.config}: {drift.figure}, of the scored rows: {before} to {after}")
    if left := [drift for drift in found.drifts if not drift.measured]:
        names = ", ".join(dict.fromkeys(drift.config for drift in left))
        say(f"{len(left)} shares of patterns are not compared: in {names} no row has a verdict on them")
    for line in moved(found):
        say(line)
    for what in found.meaning:
        say(what)
    say(f"that makes version {proposed(found.versions[0], found.step)} ({found.step or 'nothing differs'})")
