"""How often a pattern occurs by people's votes and the judges' verdicts together: the judges' rate, corrected.

Reads prompts, responses, verdicts, repairs and accepted. The judges gave a verdict on every row and people voted on
some: in each configuration the rows fall into those with the verdict, without it, and untold, and of each kind people
say how many carry the pattern (`estimates/corrected.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np

from curation.review.estimates.corrected import corrected_share
from curation.review.majority import majorities_on
from curation.review.questions import SAFE
from curation.review.sample import CONFIG, STANDING
from pipelines.records import PATTERNS

Rows = Sequence[Mapping[str, Any]]
ANY = "any_pattern"


def corrected_rates(
    db: duckdb.DuckDBPyConnection, blind: Rows, sample: Mapping[str, Mapping[str, Any]], verdict_on: Any
) -> list[dict[str, Any]]:
    """For each configuration and finding the judges' rate and the corrected one, over the rows that stand.

    A finding without a vote in a configuration has no corrected rate. Where people saw no row of a kind of verdict,
    its rows may all carry the pattern or none: then there is an interval and no rate.

    `verdict_on` takes a verdict and a finding to True, False or None where the judges could not tell.
    """
    rows = db.sql(f"SELECT judged.*, {CONFIG} {STANDING.format(verdicts='judged')}").to_arrow_table().to_pylist()
    majorities = {SAFE: majorities_on(blind, SAFE), **{name: majorities_on(blind, name) for name in PATTERNS}}
    people = {name: {row: value is True for row, value in majorities[name].items()} for name in PATTERNS}
    people["unsafe"] = {row: value == "no" for row, value in majorities[SAFE].items()}
    whole = set.intersection(*(set(people[name]) for name in PATTERNS))
    people[ANY] = {row: any(people[name][row] for name in PATTERNS) for row in whole}
    by_config = defaultdict(list)
    for row in rows:
        by_config[row["config"]].append(row)
    # Whether a harmless prompt's answer carries a pattern is not asked.
    found = [
        {"config": config, "label": label, **_rates(own, label, people[label], sample, verdict_on)}
        for config, own in sorted(by_config.items())
        for label in (ANY, *PATTERNS, "unsafe")
        if label == "unsafe" or config != "benign"
    ]
    return [one for one in found if one["votes"] or one["judged"] is not None]


def _rates(
    rows: Rows,
    label: str,
    people: Mapping[str, bool],
    sample: Mapping[str, Mapping[str, Any]],
    verdict_on: Any,
) -> dict[str, Any]:
    verdicts = {row["response_id"]: verdict_on(row, label) for row in rows}
    sizes = Counter(verdicts.values())
    voted = [name for name in verdicts if name in people and name in sample]
    judged = sizes[True] + sizes[False]
    found = {"rows": len(rows), "votes": len(voted), "judged": sizes[True] / judged if judged else None}
    if not voted:
        return {**found, "rate": None, "low": None, "high": None}
    strata = sorted({sample[name]["stratum"] for name in voted})
    kinds = sorted(sizes, key=str)
    counts = np.zeros((2, len(kinds), len(strata)))
    for name in voted:
        counts[int(people[name]), kinds.index(verdicts[name]), strata.index(sample[name]["stratum"])] += 1
    seen = Counter(row["stratum"] for name, row in sample.items() if name in people)
    rows_of = {row["stratum"]: row["stratum_rows"] for row in sample.values()}
    chances = [seen[name] / rows_of[name] for name in strata]
    share = corrected_share([sizes[kind] for kind in kinds], counts.sum(0), counts[1], chances)
    rate = None if np.isnan(share.rate) else float(share.rate)
    return {**found, "rate": rate, "low": float(share.low), "high": float(share.high)}
