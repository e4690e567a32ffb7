"""Which tables of a run are older than what they were made from.

Reads manifest.json, where every stage leaves the hashes of the tables that it read, and the tables themselves; writes
nothing. A stage calls `require_fresh` for what it reads, so that nothing is built on verdicts of other responses.
"""

from typing import NamedTuple

from pipelines.errors import UserError
from pipelines.runs import WRITTEN_BY, RunFolder, file_hash

# A table is written by one stage, and added to by another that notes it anew.
_NOTED_BY = {**WRITTEN_BY, "decisions": "apply", "reviews": "pull"}


class Stale(NamedTuple):
    """A table, what it was made from that is another file now, and the command that makes it anew."""

    table: str
    older_than: str
    renew: str

    def __str__(self) -> str:
        return f"{self.table} is older than {self.older_than}: {self.renew}"


def made_from(run: RunFolder, *tables: str) -> dict[str, str | None]:
    """The hash of each table, None where it is not there, as a stage notes what it read."""
    return {f"{name}.parquet": _hash(run, name) for name in tables}


def _hash(run: RunFolder, table: str) -> str | None:
    path = run.table_path(table)
    return file_hash(path) if path.exists() else None


def stale(run: RunFolder, *tables: str) -> list[Stale]:
    """What is older than what it was made from, among the tables and all that they rest on, the earliest first.

    A table that its stage noted no inputs of, as one that was made by hand, is taken for what it is.
    """
    stages = run.manifest()["stages"]
    hashes: dict[str, str | None] = {}
    found: dict[str, Stale] = {}
    seen: set[str] = set()

    def now(name: str) -> str | None:
        if name not in hashes:
            hashes[name] = _hash(run, name)
        return hashes[name]

    def look(table: str) -> None:
        if table in seen or table not in _NOTED_BY:
            return
        seen.add(table)
        inputs = stages.get(_NOTED_BY[table], {}).get("inputs")
        if not isinstance(inputs, dict):
            return
        for file, digest in inputs.items():
            name = str(file).removesuffix(".parquet")
            look(name)
            if now(name) != digest and table not in found:
                renew = f"saferthoughts {WRITTEN_BY[table]} {run.name}"
                found[table] = Stale(f"{table}.parquet", f"{name}.parquet", renew)

    for table in tables:
        if run.table_path(table).exists():
            look(table)
    return list(found.values())


def require_fresh(run: RunFolder, *tables: str) -> None:
    """Let a stage read the tables where none is older than what it was made from.

    Raises:
        UserError: one is; the first command that is to be run again is named.
    """
    old = stale(run, *tables)
    if old:
        raise UserError(f"{run.path}: {old[0].table} is older than {old[0].older_than}. Run again: {old[0].renew}")
