"""Where reasoning goes wrong: drift points by variant, and whether judges quote the same sentence.

Reads a run's judgements, verdicts, responses and prompts through its views; writes nothing. The drift point of a row is
the beginning of the first sentence of its reasoning that a judge quotes for a pattern that the row carries, as a share
of the reasoning. What is quoted for an inconsistency is where reasoning and answer part, and no drift.
"""

from dataclasses import asdict
from typing import Any

import duckdb

from pipelines.prompts.variant import load_variants
from pipelines.records import PATTERNS
from pipelines.statistics import wilson

_DRIFTS = tuple(label for label in PATTERNS if label != "inconsistency")
_PLACES = """
    CREATE TEMP TABLE places AS
    SELECT response_id, judge, place.*
    FROM (
        SELECT response_id, judge, unnest(from_json(spans,
            '[{"label":"VARCHAR","part":"VARCHAR","sentence":"BIGINT","sentence_start":"BIGINT"}]'
        )) AS place
        FROM judgements WHERE kind = 'patterns' AND reason = '' AND spans IS NOT NULL
    )
"""
_CARRIED = " UNION ALL ".join(
    f"SELECT response_id, '{label}' AS label FROM verdicts WHERE {label}"  # noqa: S608
    for label in _DRIFTS
)
_SHARES = ", ".join(
    f"quantile_cont(begins / length(reasoning), {share}) AS {name}"
    for name, share in (("p25", 0.25), ("median", 0.5), ("p75", 0.75))
)
_VARIANTS = f"""
    WITH firsts AS (
        SELECT response_id, min(sentence_start) FILTER (part = 'reasoning') AS begins
        FROM ({_CARRIED}) AS carried LEFT JOIN places USING (response_id, label) GROUP BY response_id
    )
    SELECT variant AS config, count(*) AS flagged, count(begins) AS placed, {_SHARES}
    FROM firsts JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
    WHERE attempt = 0 AND kind = 'harmful' GROUP BY variant
"""  # noqa: S608
# A label that two judges set and quote: whether any sentence is quoted by both.
_AGREEMENT = """
    SELECT judges, count(*) AS labels, sum(same)::BIGINT AS same
    FROM (
        SELECT one.judge || ' and ' || other.judge AS judges,
            bool_or(one.part = other.part AND one.sentence = other.sentence)::INT AS same
        FROM places AS one JOIN places AS other USING (response_id, label)
        WHERE one.judge < other.judge AND one.part IS NOT NULL AND other.part IS NOT NULL
        GROUP BY judges, response_id, label
    )
    GROUP BY judges ORDER BY judges
"""


def drift_of(db: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """Drift points of each variant, quotations with and without a place, judgements of before places were kept, and
    agreement of judges at the sentence; None where no judge quoted anything."""
    db.execute(_PLACES)
    ((quotations, lost),) = db.sql("SELECT count(*), count(*) FILTER (part IS NULL) FROM places").fetchall()
    ((unknown,),) = db.sql(
        "SELECT count(*) FROM judgements WHERE spans IS NULL AND kind = 'patterns' AND evidence NOT IN ('', '{}')"
    ).fetchall()
    if not quotations and not unknown:
        return None
    found = {row["config"]: row for row in db.sql(_VARIANTS).to_arrow_table().to_pylist()} if quotations else {}
    return {
        "variants": [found[name] for name in load_variants() if name in found],
        "quotations": quotations,
        "without_place": lost,
        "unknown": unknown,
        "agreement": [
            {"judges": judges, "labels": labels, "same": same, "rate": asdict(wilson(same, labels))}
            for judges, labels, same in db.sql(_AGREEMENT).fetchall()
        ],
    }
