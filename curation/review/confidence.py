"""What the judges' confidence is worth by people's votes: its calibration, and which rows judges may decide alone.

Reads judgements, prompts, responses and verdicts; writes nothing. The confidence in a verdict on safety is the mean
over the judges that have one: what each gives its own finding (1 where it was not asked for), turned round where that
is not the verdict's. It is a score, not a probability, until votes say so.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from curation.review.estimates.calibration import calibration
from curation.review.estimates.selective import decide_alone
from curation.review.majority import majorities_on
from curation.review.questions import SAFE
from curation.review.sample import STANDING
from pipelines.errors import UserError
from pipelines.records import PATTERNS, content_id

Rows = Sequence[Mapping[str, Any]]
_FEWEST = 20
# How far the judges of a row find fault with it, as `judges.rows.is_flagged` has it of each.
_FAULT = f"""
    SELECT response_id, avg(CASE WHEN fault THEN sure ELSE 1 - sure END) AS fault,
        bool_or(known) OR count(*) > 1 AS known
    FROM (
        SELECT response_id, coalesce(confidence, 1) AS sure, confidence IS NOT NULL AS known, coalesce(
            CASE WHEN safety = 'unsafe' THEN true WHEN prompts.kind = 'benign' THEN compliance <> 'full_compliance'
                ELSE {" OR ".join(f"judgements.{name}" for name in PATTERNS)} END,
            CASE WHEN safety = 'safe' THEN false END
        ) AS fault
        FROM judgements JOIN responses USING (response_id) JOIN prompts USING (prompt_id)
    )
    WHERE fault IS NOT NULL GROUP BY response_id
"""  # noqa: S608 - names of ours


def confidences(db: duckdb.DuckDBPyConnection, verdict_on: Any) -> dict[str, tuple[bool, float]]:
    """For each row that stands and has a verdict on safety: whether it is unsafe, and how sure that is. Empty where no
    judge has a confidence and none has a second one beside it."""
    fault = {name: (value, known) for name, value, known in db.sql(_FAULT).fetchall()}
    if not any(known for _, known in fault.values()):
        return {}
    standing = db.sql(f"SELECT judged.* {STANDING.format(verdicts='judged')}").to_arrow_table().to_pylist()
    found = {}
    for row in standing:
        verdict = verdict_on(row, "unsafe")
        if verdict is not None and row["response_id"] in fault:
            value = float(fault[row["response_id"]][0])
            found[row["response_id"]] = (bool(verdict), value if verdict else 1 - value)
    return found


def calibrated(
    sure: Mapping[str, tuple[bool, float]], blind: Rows, sample: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The calibration of the judges' confidence on rows with blind votes, weighted by what they stand for; None below
    twenty of them."""
    voted = _voted(sure, blind, sample)
    if len(voted) < _FEWEST:
        return None
    weights = [1 / _chances(voted, sample)[sample[name]["stratum"]] for name in voted]
    found = calibration([sure[name][1] for name in voted], list(voted.values()), weights)
    return {
        "rows": len(voted),
        "error": {"value": found.error, "low": found.low, "high": found.high},
        "bins": [one._asdict() for one in found.bins],
    }


def alone(
    sure: Mapping[str, tuple[bool, float]],
    blind: Rows,
    sample: Mapping[str, Mapping[str, Any]],
    frame: Mapping[str, str],
    max_error: float,
) -> dict[str, Any]:
    """Which rows judges may decide alone with at most this share of errors among them, as `decide_alone` has it.

    A stratum that was drawn more often loses votes by lot until all were drawn alike, and one without votes goes to
    people, as does a row without a verdict.

    Args:
        sure: What `confidences` gives.
        sample: The rows that were drawn, by id.
        frame: The stratum of each row that could have been.
        max_error: The share that is allowed.

    Raises:
        UserError: no judge has a confidence.
    """
    if not sure:
        raise UserError(
            "No verdict has a confidence, so none is surer than another. Judge with --repeat 5 or --logprobs, or with "
            "a second judge; answers that are kept are not asked for again."
        )
    voted = _voted(sure, blind, sample)
    chances = _chances(voted, sample)
    least = min(chances.values(), default=0.0)
    lots = {name: random.Random(content_id("lot", name)) for name in sorted(voted)}
    kept = [name for name, lot in lots.items() if lot.random() * chances[sample[name]["stratum"]] < least]
    kept.sort(key=lambda name: content_id("selective", name))
    open_to = {name: value for name, (_, value) in sure.items() if frame.get(name) in chances}
    found = decide_alone(
        list(open_to.values()) or [0.0], [sure[name][1] for name in kept], [not voted[name] for name in kept], max_error
    )
    threshold = found.threshold
    deciding = sorted(name for name, value in open_to.items() if threshold is not None and value >= threshold)
    facts = {"max_error": max_error, "votes": len(kept), "rows": len(frame), "alone": len(deciding)}
    return {**facts, **found._asdict(), "ids": deciding}


def _voted(
    sure: Mapping[str, tuple[bool, float]], blind: Rows, sample: Mapping[str, Mapping[str, Any]]
) -> dict[str, bool]:
    """Whether the judges are right, for each row with a majority of blind votes and a verdict."""
    people = majorities_on(blind, SAFE)
    return {name: sure[name][0] == (vote == "no") for name, vote in people.items() if name in sure and name in sample}


def _chances(voted: Mapping[str, bool], sample: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The share of each stratum's rows that have votes."""
    counts: dict[str, float] = {}
    for name in voted:
        row = sample[name]
        counts[row["stratum"]] = counts.get(row["stratum"], 0.0) + 1 / row["stratum_rows"]
    return counts
