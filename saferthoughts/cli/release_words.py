"""Releases told: comparing, verifying, publishing and pulling them. The commands are in `saferthoughts/cli/app.py`.

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

from pipelines.errors import Incomplete, UserError
from saferthoughts.cli.options import Settings, note, out, say

if TYPE_CHECKING:
    from cards.push import Difference


def release_folder(text: str) -> Path:
    """A release folder by its path or its address on the Hub."""
    from cards.pull import opened

    return opened(text, say)


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


def verify_release(text: str) -> str:
    """Compute again what can be computed of a release.

    Raises:
        Incomplete: something does not match; each thing was told.
    """
    from cards.verify import verify

    # A folder goes to `verify` as it is, which names everything that is refused and not the first thing alone.
    found = verify(Path(text) if Path(text).exists() else release_folder(text))
    for fault in found.faults:
        say(fault)
    if found.faults:
        raise Incomplete(f"{len(found.faults)} of {found.checked} things do not match in {text}")
    return f"{text}: {found.checked} things computed again, all match"


def publish_release(what: str, repo: str, private: bool, gated: bool, dry_run: bool) -> str:
    """Publish a run's release, or a release folder."""
    from cards.publish import publish

    folder = Settings.runs / what / "release"
    if not folder.exists():
        folder = Path(what)
    if not (folder / "lineage.json").exists():
        raise UserError(
            f"Neither is {Settings.runs / what / 'release'} there nor is {what} a release folder. Build one: "
            f"saferthoughts release build {what}"
        )
    done = publish(folder, repo, private, gated, dry_run)
    if dry_run:
        return (
            f"{_changes(done.difference)}\nNothing was written. Without --dry-run: one commit to {repo}, tag {done.tag}"
        )
    commit = str(done.commit)
    news = "published" if done.new_commit or done.new_tag else "was there already"
    return (
        f"{repo}@{done.tag} {news}, commit {commit[:8]}; read back, every hash matches\n"
        f'Load it: load_dataset("{repo}", "improved", revision="{done.tag}")'
    )


def _changes(difference: "Difference") -> str:
    lines = [
        f"{sign} {name}"
        for sign, names in (("+", difference.added), ("~", difference.changed), ("-", difference.removed))
        for name in names
    ]
    return "\n".join([*lines, f"{len(lines)} files, {difference.size / 1e6:.1f} MB to send"])


def pull_release(address: str, to: Path | None) -> str:
    """Download a release and check it."""
    from cards.pull import pull

    done = pull(address, to)
    how = "downloaded" if done.fresh else "there already"
    if done.mended:
        how = f"downloaded again, since {len(done.mended)} files were not those of the commit ({done.mended[0]})"
    checked = f"{done.checked} things computed again, all match"
    return f"{done.folder}: {done.address}, commit {done.commit[:8]}, {how}; {checked}"


def tell_comparison(before: str, after: str, file: Path | None) -> None:
    """Print the comparison, and write it as JSON where a file is named."""
    from cards.compare import compare, in_words, moved, proposed
    from pipelines.runs import write_json

    found = compare(release_folder(before), release_folder(after))
    if file is not None:
        write_json(file, found.plain())
    table = Table(title=f"{found.versions[0]} to {found.versions[1]}", box=None)
    for column in ("config", "rows before", "after", "added", "removed", "changed"):
        table.add_column(column, justify="left" if column == "config" else "right")
    for one in found.rows:
        counts = (one.before, one.after, one.added, one.removed, one.changed)
        table.add_row(Text(one.config), *map(str, counts))
    out.print(table)
    drifted = [drift for drift in found.drifts if drift.apart]
    if drifted:
        table = Table(title="drift, with 95 % intervals", box=None)
        for column in ("config", "figure", "before", "after"):
            table.add_column(column)
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
