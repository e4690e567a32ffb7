"""Pairs, labels, prompts and steps from a run's tables into a release that is being built.

Reads the views of `cards.rows.rows.released_views`; writes objectives/<config>/train-*.parquet. DuckDB pairs by ids and
counts alone, in temporary tables, and texts pass through in batches: memory does not grow with the rows. Every accepted
response and every response with a fault is in a configuration or counted with the reason why it is not.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cards.objectives.schema import OBJECTIVES, columns_of
from cards.objectives.steps import labelled
from cards.rows.rows import BATCH, assistant_turn, conversations, finished, user_turn
from cards.rows.schema import schema_of
from cards.rows.shards import OBJECTIVES as FOLDER
from cards.rows.shards import ConfigWriter, fenced, shards_of
from curation.selection import selected_rows
from pipelines.runs import RunFolder
from pipelines.settings.config import Release


def write_objectives(
    run: RunFolder, db: duckdb.DuckDBPyConnection, settings: Release, folder: Path, run_id: str, shard_bytes: int
) -> dict[str, dict[str, Any]]:
    """Write the configurations that the run asks for.

    Args:
        run: A run that is checked.
        db: Its tables, with the view `released` (`cards.rows.rows.released_views`).
        run_id: The configuration's hash.
        shard_bytes: About how large a parquet file grows.

    Returns:
        Of each: rows, content hash, sizes, how many responses (or prompts) were considered and used, what was left out
        for which reason, and what is counted on the card.

    Raises:
        RuntimeError: a response is neither in a configuration nor counted.
    """
    if not settings.configs:
        return {}
    db.execute(_query("graded"), {"selected": bool(selected_rows(run))})
    db.execute(_query("pairs"), {"length_ratio": settings.length_ratio or float("inf")})
    found: dict[str, dict[str, Any]] = {}
    for name in (one for one in OBJECTIVES if one in settings.configs):
        place = folder / FOLDER / name
        left_out = Counter(dict(db.sql(_LEFT_OUT[name]).fetchall()))
        schema = schema_of(columns_of(name, settings.reasoning_key))
        with ConfigWriter(place, schema, shard_bytes) as writer:
            for batch in db.sql(_query(name)).to_arrow_reader(BATCH):
                rows = pa.Table.from_batches([batch])
                rows = _steps(rows, left_out) if name == "steps" else _turns(rows, name, settings.reasoning_key)
                writer.write(finished(rows, schema, run_id))
            written = writer.finish()
        ((considered, used),) = db.sql(_CONSIDERED[name]).fetchall()
        used = used or written.rows
        if used + left_out.total() != considered:
            raise RuntimeError(f"{name}: {considered} were considered, {used} used and {left_out.total()} left out")
        found[name] = {
            **asdict(written),
            "considered": considered,
            "used": used,
            "left_out": [{"reason": reason, "rows": rows} for reason, rows in sorted(left_out.items())],
            "counts": counts_of(folder, name),
        }
        if not written.rows:
            shutil.rmtree(place)
    return found


def counts_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the card counts of a configuration, from its files."""
    shards = shards_of(folder, name)
    with fenced(shards) as db:
        db.read_parquet([str(path) for path in shards]).create_view("rows")
        found = db.sql(f"SELECT {_COUNTED[name]} FROM rows GROUP BY ALL ORDER BY ALL")  # noqa: S608
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def _query(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


def _turns(rows: pa.Table, name: str, key: str) -> pa.Table:
    rows = rows.append_column("prompt", conversations([user_turn(rows["query"])]))
    sides = {"preference": {"chosen": "chosen_", "rejected": "rejected_"}, "unpaired": {"completion": ""}}
    for side, prefix in sides.get(name, {}).items():
        turn = assistant_turn(rows[f"{prefix}reasoning"], rows[f"{prefix}answer"], key)
        rows = rows.append_column(side, conversations([turn], key))
    return rows


def _steps(rows: pa.Table, left_out: Counter[str]) -> pa.Table:
    kept: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        found = labelled(row["reasoning"], json.loads(row["evidence"]), row["faults"].split(","))
        if found.first_wrong is None and row["doubt"]:
            left_out[row["doubt"]] += 1
        else:
            by = "verdict" if found.first_wrong is None else "quotes"
            kept.append({**row, **found._asdict(), "labelled_by": by})
    schema = schema_of(columns_of("steps", "inline"))
    return pa.Table.from_pylist(kept, schema=schema.remove(schema.get_field_index("run_id")))


# Of each configuration, what was not even looked at, by reason; `_steps` adds what it leaves out.
_LEFT_OUT: Mapping[str, str] = {
    "preference": _query("unused"),
    "unpaired": "SELECT left_out, count(*) FROM graded WHERE left_out IS NOT NULL GROUP BY left_out",
    "prompts": "SELECT 'turned down by the check contaminated', count(*) FROM prompts "  # noqa: S608
    f"WHERE prompt_id NOT IN (SELECT id FROM ({_query('prompts')})) HAVING count(*) > 0",
    "steps": """
        SELECT coalesce(left_out, CASE WHEN kind = 'benign' THEN 'benign: patterns are not judged' END,
            'without reasoning') AS reason, count(*)
        FROM graded WHERE left_out IS NOT NULL OR kind = 'benign' OR NOT reasoned GROUP BY reason
    """,
}
# How many there were, and how many of them are in a pair; elsewhere the rows are what is used.
_CONSIDERED: Mapping[str, str] = {
    "preference": """
        SELECT count(*), count(*) FILTER (response_id IN (
            SELECT unnest([chosen_id, rejected_id]) FROM matched WHERE hindrance IS NULL
        )) FROM graded
    """,
    "unpaired": "SELECT count(*), 0 FROM graded",
    "prompts": "SELECT count(*), 0 FROM prompts",
    "steps": "SELECT count(*), 0 FROM graded",
}
_COUNTED: Mapping[str, str] = {
    "preference": """
        origin, pattern, kind, count(*) AS rows, sum(chosen_words)::BIGINT AS chosen_words,
        sum(rejected_words)::BIGINT AS rejected_words, count(*) FILTER (chosen_words > rejected_words) AS chosen_longer
    """,
    "unpaired": "kind, label, count(*) AS rows",
    "prompts": "kind, expected, count(*) AS rows",
    "steps": "labelled_by, count(*) AS rows, sum(len(labels))::BIGINT AS sentences, "
    "sum(len(list_filter(labels, lambda label: NOT label)))::BIGINT AS false_sentences",
}
