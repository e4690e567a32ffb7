"""Rows that a release has from a dataset of others: from where, how many, and whose answers the released ones are.

Reads the manifest and the tables of a run; writes nothing.
"""

from collections.abc import Mapping
from typing import Any

import duckdb

# Of more models in a config, those with the most rows are named.
_MOST_MODELS = 20
_ANSWERS = f"""
WITH written AS (
    SELECT CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config, attempt > 0 AS mended, model,
        count(*) AS rows
    FROM released JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
    GROUP BY ALL
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY config, mended ORDER BY rows DESC, model) AS place FROM written
)
SELECT config, mended, CASE WHEN place <= {_MOST_MODELS} THEN model END AS model, count(*) AS models,
    sum(rows)::BIGINT AS rows
FROM placed GROUP BY ALL ORDER BY ALL NULLS LAST
"""  # noqa: S608 - a number of ours


def imported_of(stages: Mapping[str, Any], db: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """What the lineage has of an import; None for a run that was generated.

    `answers` counts released rows by config, model and whether repair wrote them. An empty model is one that the
    dataset does not name; None stands for `models` further ones. What runs of before did not record is None, or empty.
    """
    if (stage := stages.get("import")) is None:
        return None
    counts = stage["counts"]
    names = ("config", "mended", "model", "models", "rows")
    return {
        "name": stages["prompts"]["pool"]["name"],
        "config": stage["source"]["config"],
        "revision": stage["source"]["revision"],
        "digest": stage.get("digest"),
        "read": counts["planned"],
        "refused": counts["failed"],
        "failures": stage.get("failures"),
        "unread": stage["unread"],
        "answers": [dict(zip(names, row, strict=True)) for row in db.sql(_ANSWERS).fetchall()],
    }


def origin(imported: Mapping[str, Any]) -> str:
    """The dataset, and what identifies the version that was read."""
    config = f", configuration {imported['config']}" if imported["config"] else ""
    version = imported["digest"] or (f"revision {imported['revision']}" if imported["revision"] else None)
    return f"{imported['name']}{config} ({version or 'which version of it is not recorded'})"


def how_written(line: Mapping[str, Any], called: Mapping[str, str]) -> str:
    """Whose answers a line of `answers` counts; `called` has names for models."""
    model = f"{line['models']} further models" if line["model"] is None else line["model"]
    if line["mended"]:
        return f"mended by {called.get(model, model)}"
    return f"as imported, by {model}, as the dataset says" if model else "as imported, by whom the dataset does not say"
