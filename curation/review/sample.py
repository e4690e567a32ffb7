"""Which rows `review push --rows` asks about: where the judges are in doubt, and a random share with known weights.

Reads responses, prompts, verdicts, repairs and accepted; writes review_sample.parquet, a row a sampled response. The
rows that could be asked about are those that stand for their prompt (no superseded attempts) and were written by a
teacher. They fall into strata by why they are worth a look, configuration, and whether they are accepted; within a
stratum the draw is a simple random one, so a row stands for N/n rows of its stratum.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation.selection import allocate
from curation.sql.views import open_views
from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config

SAMPLE = pa.schema(
    [
        *[(name, pa.string()) for name in ("response_id", "stratum", "reason", "config")],
        ("accepted", pa.bool_()),
        ("stratum_rows", pa.int64()),
        ("overlap", pa.bool_()),
        ("assisted", pa.bool_()),
        ("sent", pa.bool_()),
        # The chance that the row was drawn: from its stratum's rows, in a round from those that were left.
        ("probability", pa.float64()),
        # Of a draw for a budget (`budget.py`): its round, the row's place in the draw and what a vote there pays
        # (`estimates.sequence.Vote`); null for the rows of `--rows` and for those that replace others.
        *[(name, pa.int64()) for name in ("round", "place")],
        *[(name, pa.float64()) for name in ("pays", "most")],
    ]
)
TABLE = "review_sample"
CONFIG = "CASE WHEN prompts.kind = 'benign' THEN 'benign' ELSE responses.variant END AS config"
# The rows that could be asked about, with people's majority in the judges' place (`verdicts`) or without (`judged`).
STANDING = """
    FROM responses
    JOIN prompts USING (prompt_id)
    JOIN {verdicts} USING (response_id)
    WHERE responses.teacher <> ''
        AND responses.response_id NOT IN (SELECT response_id FROM repairs WHERE NOT chosen)
    ORDER BY responses.response_id
"""
_ROWS = f"""
    SELECT responses.response_id, responses.reasoning, responses.answer, prompts.text AS prompt, prompts.kind,
        prompts.category, responses.attempt, verdicts.* EXCLUDE (response_id), {CONFIG},
        responses.response_id IN (SELECT response_id FROM accepted) AS accepted
    {STANDING.format(verdicts="verdicts")}
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many rows, and which share of them at random over all; the rest goes to where the judges are in doubt.

    With `votes`, a budget of them in place of `rows`, `budget.py` chooses.
    """

    rows: int
    random_share: float
    overlap: float
    assisted: bool
    votes: int | None = None


def population(run: RunFolder) -> list[dict[str, Any]]:
    """Every row that could be asked about, with its texts, verdict, reason and stratum.

    Raises:
        UserError: the run is not checked yet, or a table is broken.
    """
    with open_views(run, "prompts", "responses", "verdicts", "accepted") as db:
        rows: list[dict[str, Any]] = db.sql(_ROWS).to_arrow_table().to_pylist()
    for row in rows:
        row["verdict_reason"] = row["reason"]
        row["reason"] = _reason(row)
        row["stratum"] = f"{row['reason']}/{row['config']}/{'accepted' if row['accepted'] else 'rejected'}"
    return rows


def _reason(row: dict[str, Any]) -> str:
    if row["disagreement"]:
        return "disagreement"
    wrong = row["overthinking"] or row["lack_of_safety_awareness"] or row["inconsistency"] or row["safety"] == "unsafe"
    if wrong or (row["kind"] == "harmful") == (row["refused"] is False):
        return "flagged"
    return "repaired" if row["attempt"] else "plain"


def draw_sample(run: RunFolder, rows: list[dict[str, Any]], wanted: Wanted) -> list[dict[str, Any]]:
    """The sample as SAMPLE rows; what an earlier draw has sent stays in it.

    Raises:
        UserError: there is nothing to ask about.
    """
    if not rows:
        raise UserError(f"{run.path} has no rows to review: none was written by a teacher.")
    seed = load_config(run).seed
    strata: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        strata[row["stratum"]].append(row)
    sizes = {name: len(found) for name, found in strata.items()}
    counts = counts_of(sizes, wanted)
    earlier = {row["response_id"]: row for row in sample_of(run)}
    chosen = []
    for name, found in sorted(strata.items()):
        # The order depends on the id alone, so a larger sample holds the smaller one.
        found.sort(key=lambda row: in_order(seed, row["response_id"]))
        own = found[: max(counts[name], sum(row["response_id"] in earlier for row in found))]
        chosen += [
            earlier.get(row["response_id"])
            or {
                **{key: row[key] for key in ("response_id", "stratum", "reason", "config", "accepted")},
                "stratum_rows": sizes[name],
                "overlap": False,
                "assisted": wanted.assisted,
                "sent": False,
            }
            for row in own
        ]
    drawn = Counter(row["stratum"] for row in chosen)
    for row in chosen:
        row["probability"] = drawn[row["stratum"]] / row["stratum_rows"]
    draw_overlap([row for row in chosen if row["response_id"] not in earlier], chosen, wanted.overlap, seed)
    return sorted(chosen, key=lambda row: str(row["response_id"]))


def in_order(seed: int, response_id: str) -> str:
    """What to sort a stratum's rows by for its draw."""
    return content_id(seed, "review", response_id)


def draw_overlap(new: list[dict[str, Any]], chosen: list[dict[str, Any]], share: float, seed: int) -> None:
    """Mark rows that several people see among the new ones, until the share holds of all; what was sent stays."""
    missing = round(share * len(chosen)) - sum(row["overlap"] for row in chosen)
    for row in sorted(new, key=lambda row: content_id(seed, "overlap", row["response_id"]))[: max(missing, 0)]:
        row["overlap"] = True


def counts_of(sizes: dict[str, int], wanted: Wanted) -> dict[str, int]:
    """How many rows each stratum gives: a share in proportion to its size, the rest alike among reasons for doubt."""
    total = min(wanted.rows, sum(sizes.values()))
    at_random = allocate(sizes, sizes, round(total * wanted.random_share))
    left = {name: sizes[name] - at_random[name] for name in sizes}
    reasons = Counter(name.split("/")[0] for name in sizes)
    doubtful = {name: left[name] if name.split("/")[0] != "plain" else 0 for name in sizes}
    # Each reason weighs the same, whatever number of strata it has.
    weights = {name: round(1_000_000 / reasons[name.split("/")[0]]) for name in sizes}
    looked_at = allocate(doubtful, weights, total - sum(at_random.values()))
    rest = total - sum(at_random.values()) - sum(looked_at.values())
    more = allocate({name: left[name] - looked_at[name] for name in sizes}, sizes, rest)
    return {name: at_random[name] + looked_at[name] + more[name] for name in sizes}


def sample_of(run: RunFolder) -> list[dict[str, Any]]:
    """The rows that were drawn so far."""
    path = run.table_path(TABLE)
    rows = run.read(TABLE).to_pylist() if path.exists() else []
    return [{**dict.fromkeys(SAMPLE.names), **row} for row in rows]


def write_sample(run: RunFolder, rows: list[dict[str, Any]]) -> None:
    """Keep the sample."""
    run.write(TABLE, pa.Table.from_pylist(rows, schema=SAMPLE))
