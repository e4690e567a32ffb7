"""Pairs, labels, prompts and steps from a run's tables into a release that is being built.

Reads the views of `cards.rows.released_views`; writes objectives/<config>/train-*.parquet. DuckDB pairs by ids and
counts alone, in temporary tables, and texts pass through in batches: memory does not grow with the rows. Every accepted
response and every response with a fault is in a configuration or counted with the reason why it is not.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cards.objectives.schema import OBJECTIVES, columns_of
from cards.objectives.steps import labelled
from cards.rows import BATCH, assistant_turn, conversations, finished, user_turn
from cards.schema import schema_of
from cards.shards import OBJECTIVES as FOLDER
from cards.shards import ConfigWriter, read_shards
from curation.selection import selected_rows
from pipelines.runs import RunFolder
from pipelines.settings.config import Release


@dataclass(frozen=True, slots=True)
class _Target:
    """Where rows go, and what each of them gets."""

    folder: Path
    run_id: str
    reasoning_key: str
    shard_bytes: int


def write_objectives(
    run: RunFolder,
    db: duckdb.DuckDBPyConnection,
    settings: Release,
    folder: Path,
    run_id: str,
    shard_bytes: int,
) -> dict[str, dict[str, Any]]:
    """Write the configurations that the run asks for.

    Args:
        run: A run that is checked.
        db: Its tables, with the view `released` (`cards.rows.released_views`).
        settings: Which configurations, and how.
        folder: The release that is being built.
        run_id: The configuration's hash.
        shard_bytes: About how large a parquet file grows.

    Returns:
        Of each: rows, content hash, sizes, how many responses (or prompts) were considered, what was left out for which
        reason, and what is counted on the card.

    Raises:
        RuntimeError: a response is neither in a configuration nor counted.
    """
    if not settings.configs:
        return {}
    _execute(db, "graded", selected=bool(selected_rows(run)))
    _execute(db, "pairs", length_ratio=settings.length_ratio or float("inf"))
    target = _Target(folder, run_id, settings.reasoning_key, shard_bytes)
    return {name: _write(db, name, target) for name in OBJECTIVES if name in settings.configs}


def _query(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


def _execute(db: duckdb.DuckDBPyConnection, name: str, **parameters: Any) -> None:
    db.execute(_query(name), parameters)


def _write(db: duckdb.DuckDBPyConnection, name: str, target: _Target) -> dict[str, Any]:
    left_out = Counter(dict(db.sql(_LEFT_OUT[name]).fetchall()))
    schema = schema_of(columns_of(name, target.reasoning_key), target.reasoning_key)
    reader = db.sql(_query(name)).to_arrow_reader(BATCH)
    with ConfigWriter(target.folder / FOLDER / name, schema, target.shard_bytes) as writer:
        for batch in reader:
            rows = pa.Table.from_batches([batch])
            rows = _steps(rows, left_out) if name == "steps" else _conversations(rows, name, target.reasoning_key)
            if rows.num_rows:
                writer.write(finished(rows, schema, target.run_id))
        written = writer.finish()
    ((considered, used),) = db.sql(_CONSIDERED[name]).fetchall()
    used = written.rows if used is None else used
    if used + left_out.total() != considered:
        raise RuntimeError(f"{name}: {considered} were considered, {used} used and {left_out.total()} left out")
    return {
        **asdict(written),
        "considered": considered,
        "used": used,
        "left_out": [{"reason": reason, "rows": rows} for reason, rows in sorted(left_out.items())],
        "counts": counted(read_shards(target.folder, name), name),
    }


def _conversations(rows: pa.Table, name: str, key: str) -> pa.Table:
    rows = rows.append_column("prompt", conversations([user_turn(rows["query"])]))
    sides = {"preference": ("chosen", "rejected"), "unpaired": ("completion",), "prompts": ()}[name]
    for side in sides:
        before = f"{side}_" if name == "preference" else ""
        turn = assistant_turn(rows[f"{before}reasoning"], rows[f"{before}answer"], key)
        rows = rows.append_column(side, conversations([turn], key))
    if name == "preference":
        texts = [assistant_turn(rows[f"{side}_reasoning"], rows[f"{side}_answer"], "inline").content for side in sides]
        shared = [shared_words(*both) for both in zip(*(column.to_pylist() for column in texts), strict=True)]
        rows = rows.append_column("shared_words", pa.array(shared, pa.int64()))
    return rows


def shared_words(one: str, other: str) -> int:
    """With how many words, the mark before the reasoning among them, both texts begin."""
    return len(commonprefix([one.split(), other.split()]))


def _steps(rows: pa.Table, left_out: Counter[str]) -> pa.Table:
    kept: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        found = labelled(row["reasoning"], json.loads(row["evidence"]), row["faults"].split(","))
        if found.first_wrong is None and row["doubt"]:
            left_out[row["doubt"]] += 1
            continue
        by = "verdict" if found.first_wrong is None else "quotes"
        kept.append({**row, **found._asdict(), "labelled_by": by})
    columns = {column.name: column.type for column in OBJECTIVES["steps"].columns if column.name != "run_id"}
    return pa.Table.from_pylist(kept, schema=pa.schema(list(columns.items())))


# Of each configuration, what was not even looked at, by reason. What `_steps` leaves out is added to it.
_LEFT_OUT: Mapping[str, str] = {
    "preference": _query("unused"),
    "unpaired": "SELECT left_out, count(*) FROM graded WHERE left_out IS NOT NULL GROUP BY left_out",
    "prompts": f"SELECT 'turned down by the check contaminated', count(*) FROM prompts "  # noqa: S608
    f"WHERE prompt_id NOT IN (SELECT id FROM ({_query('prompts')})) HAVING count(*) > 0",
    "steps": """
        SELECT CASE
            WHEN left_out IS NOT NULL THEN left_out
            WHEN kind = 'benign' THEN 'benign: patterns are not judged'
            ELSE 'without reasoning' END AS reason, count(*)
        FROM graded WHERE left_out IS NOT NULL OR kind = 'benign' OR NOT reasoned GROUP BY reason
    """,
}
# How many there were, and how many of them are in a row; null where rows are what is counted.
_CONSIDERED: Mapping[str, str] = {
    "preference": """
        SELECT count(*), count(*) FILTER (
            response_id IN (SELECT chosen_id FROM matched WHERE hindrance IS NULL)
            OR response_id IN (SELECT rejected_id FROM matched WHERE hindrance IS NULL)) FROM graded
    """,
    "unpaired": "SELECT count(*), NULL FROM graded",
    "prompts": "SELECT count(*), NULL FROM prompts",
    "steps": "SELECT count(*), NULL FROM graded",
}


def counted(rows: Iterator[pa.Table], name: str) -> list[dict[str, Any]]:
    """What the card counts of a configuration, from its rows.

    Of `preference` also the mean words of both sides and how often the chosen one is the longer.
    """
    by = _BY[name]
    counts: Counter[tuple[Any, ...]] = Counter()
    chosen: Counter[tuple[Any, ...]] = Counter()
    rejected: Counter[tuple[Any, ...]] = Counter()
    longer: Counter[tuple[Any, ...]] = Counter()
    for batch in rows:
        keys = list(zip(*(batch[column].to_pylist() for column in by), strict=True))
        counts.update(keys)
        if name == "preference":
            words = (batch[f"{side}_words"].to_pylist() for side in ("chosen", "rejected"))
            for key, one, other in zip(keys, *words, strict=True):
                chosen[key] += one
                rejected[key] += other
                longer[key] += one > other
    order = sorted(counts, key=lambda key: tuple(map(str, key)))
    more = ({"chosen_words": chosen, "rejected_words": rejected, "chosen_longer": longer}) if chosen else {}
    return [
        {**dict(zip(by, key, strict=True)), "rows": counts[key], **{word: n[key] for word, n in more.items()}}
        for key in order
    ]


_BY: Mapping[str, tuple[str, ...]] = {
    "preference": ("origin", "pattern", "kind"),
    "unpaired": ("kind", "label"),
    "prompts": ("kind", "expected"),
    "steps": ("labelled_by",),
}
