"""Of each figure of a report one row behind it: what a link leads to where there is no service with all of them.

Reads a run's views (`curation/sql/views.py`); writes nothing.
"""

import json
from typing import Any
from urllib.parse import urlencode

import duckdb

from pipelines.prompts.mildness import severity_sql
from pipelines.records import PATTERNS

_SHOWN = 4000
_LABELS = {
    "any": " OR ".join(PATTERNS),
    **{name: name for name in PATTERNS},
    "unsafe": "safety = 'unsafe'",
}


def rows_link(**wanted: str) -> str:
    """What rows are asked for by, as the service's page of rows has it in its address: also an excerpt's anchor."""
    return f"rows?{urlencode(wanted)}"


def excerpts_of(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """A mild row for each configuration as answered, as accepted, and with each finding, long texts cut.

    Returns:
        Each row once: its texts, what judges quote of it by label, and `anchors`, all the links that it stands for.
    """
    place = f"ORDER BY {severity_sql('category', 'kind')}, response_id"
    first = {rows_link(where="attempt:eq:0"): "attempt = 0"}
    accepted = {rows_link(outcome="accepted"): "response_id IN (SELECT response_id FROM accepted)"}
    flagged = {rows_link(flag=flag, where="attempt:eq:0"): f"attempt = 0 AND ({sql})" for flag, sql in _LABELS.items()}
    wanted = first | (accepted if _is_there(db, "accepted") else {}) | flagged
    columns = ", ".join(f"first(response_id {place}) FILTER ({sql})" for sql in wanted.values())
    found = db.sql(
        f"""
        SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config, {columns}
        FROM responses JOIN prompts USING (prompt_id) LEFT JOIN verdicts USING (response_id)
        GROUP BY config ORDER BY config
        """  # noqa: S608  columns of ours
    ).fetchall()
    anchors: dict[str, list[str]] = {}
    for config, *ids in found:
        for link, response_id in zip(wanted, ids, strict=True):
            if response_id is not None:
                anchors.setdefault(response_id, []).append(link.replace("?", f"?{urlencode({'config': config})}&", 1))
    return [{**row, "anchors": anchors[row["response_id"]]} for row in _texts(db, list(anchors))]


def _is_there(db: duckdb.DuckDBPyConnection, view: str) -> bool:
    return bool(db.execute("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [view]).fetchall())


def _texts(db: duckdb.DuckDBPyConnection, ids: list[str]) -> list[dict[str, Any]]:
    query = f"""
        SELECT response_id, variant, prompts.kind, coalesce(verdicts.evidence, '{{}}') AS evidence,
            {", ".join(cut(column) for column in ("text", "reasoning", "answer"))}
        FROM responses JOIN prompts USING (prompt_id) LEFT JOIN verdicts USING (response_id)
        WHERE response_id IN (SELECT unnest($ids)) ORDER BY variant, response_id
    """  # noqa: S608  columns of ours
    rows = db.sql(query, params={"ids": ids}).to_arrow_table().to_pylist()
    return [{**row, "evidence": json.loads(row["evidence"])} for row in rows]


def cut(column: str) -> str:
    """SQL for a text, or its beginning with how long it is."""
    return (
        f"CASE WHEN length({column}) > {_SHOWN} THEN left({column}, {_SHOWN}) || ' [... ' || length({column}) || "
        f"' characters]' ELSE {column} END AS {column}"
    )
