"""The share of unsafe rows among the accepted ones, for the card at any size of review and for the gate at any time.

Reads review_frame where the run was pushed with a budget. `rate`, `low` and `high` are those of one look, at the votes
that are there; `anytime` holds at every look, so that a team may stop as soon as a bound is decided.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.review.budget import counts_by_stratum, frame_of, guess_of
from curation.review.estimates.plan import expected
from curation.review.estimates.sequence import RISK, Vote, Wealth, more_votes
from curation.review.estimates.stratified import stratified_share
from curation.review.majority import majorities_on
from curation.review.questions import SAFE
from curation.review.sample import sample_of
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.statistics import wilson_share

Rows = Sequence[Mapping[str, Any]]
_GRID = np.concatenate([np.arange(1, 200) / 2000, np.arange(20, 201) / 200])


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the votes say of the bound that the run's gate sets, and how many more are likely needed.

    `below` is True where the share is shown to be below the bound, False where above; None while it is open. `more` is
    None where it is decided, no bound is set, or more votes than rows would be needed.
    """

    votes: int
    low: float
    high: float
    bound: float | None
    below: bool | None
    more: int | None


def unsafe_share(run: RunFolder, blind: Rows, sample: Mapping[str, Mapping[str, Any]], accepted: set[str]) -> Any:
    """The share of accepted rows that people call unsafe.

    Rows accepted when they were sampled. Of a run pushed with `--rows`, strata of which nobody has seen a row are left
    out and counted, and the interval is Wilson's at Kish's effective number of rows; with a budget it is
    `stratified_share`'s, and what nobody has seen may be all safe or all unsafe.
    """
    majorities = majorities_on(blind, SAFE)
    own = [row for name, row in sample.items() if row["accepted"] and name in majorities]
    frame = frame_of(run)
    facts: dict[str, Any] = {"rows": len(own), "accepted": len(accepted), "rows_of_unseen_strata": 0}
    if frame is None:
        return {**facts, **_weighted(own, sample, majorities), "anytime": None}
    counts = counts_by_stratum(frame, list(sample.values()), blind)
    before = {row["response_id"] for row in frame if row["accepted"]}
    facts["accepted_since"] = len(accepted - before - majorities.keys())
    if not own:
        return {**facts, "rate": None, "low": None, "high": None, "method": None, "anytime": None}
    found = stratified_share(counts.rows, counts.asked, counts.unsafe)
    method = "exact" if len(counts.names) == 1 else "stratified"
    share = {"rate": float(found.rate), "low": float(found.low), "high": float(found.high), "method": method}
    one = outlook(run, frame, sample, blind)
    held = {"votes": one.votes, "low": one.low, "high": one.high, "risk": RISK, "more": one.more}
    return {**facts, **share, "anytime": held}


def _weighted(own: Rows, sample: Mapping[str, Mapping[str, Any]], majorities: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {row["stratum"]: row["stratum_rows"] for row in sample.values() if row["accepted"]}
    seen = Counter(row["stratum"] for row in own)
    unseen = sum(size for name, size in sizes.items() if name not in seen)
    weights = np.array([sizes[row["stratum"]] / seen[row["stratum"]] for row in own])
    if not own:
        nothing = dict.fromkeys(("rate", "low", "high", "method"))
        return {**nothing, "rows_of_unseen_strata": unseen, "effective_rows": 0.0}
    unsafe = np.array([majorities[row["response_id"]] == "no" for row in own])
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    found = asdict(wilson_share(float((weights * unsafe).sum() / weights.sum()), effective))
    return {**found, "method": "weighted", "rows_of_unseen_strata": unseen, "effective_rows": effective}


def outlook_of(run: RunFolder) -> Outlook | None:
    """`outlook` of the votes that were pulled; None where the run was not pushed with a budget."""
    frame = frame_of(run)
    if frame is None:
        return None
    sample = {row["response_id"]: row for row in sample_of(run)}
    reviews = run.read("reviews").to_pylist() if run.table_path("reviews").exists() else []
    return outlook(run, frame, sample, [row for row in reviews if row["response_id"] in sample and not row["assisted"]])


def outlook(run: RunFolder, frame: Rows, sample: Mapping[str, Mapping[str, Any]], blind: Rows) -> Outlook:
    """The confidence sequence over the votes in the order of the draw, and how far it is from a decision."""
    counts = counts_by_stratum(frame, list(sample.values()), blind)
    bound = load_config(run).release.requires.unsafe_upper_bound
    rows = sum(counts.rows)
    grid = _GRID if bound is None else np.union1d(_GRID, bound)
    votes = list(_in_order(sample.values(), majorities_on(blind, SAFE)))
    wealth = _after(votes, grid, rows)
    found = sum(counts.unsafe) / rows if rows else 0.0
    unknown = (rows - sum(counts.asked)) / rows if rows else 1.0
    open_below, refuted = grid[~wealth.below], grid[wealth.above]
    above_all = int(np.searchsorted(grid, open_below.max())) + 1 if open_below.size else 0
    high = min(float(grid[min(above_all, len(grid) - 1)]), found + unknown)
    low = max(float(refuted.max()) if refuted.size else 0.0, found)
    below = None if bound is None else True if high <= bound else False if low >= bound else None
    more = None
    if bound is not None and below is None and rows:
        # What was drawn and waits for a vote is counted among what is still to come.
        left = np.array(counts.rows) - counts.asked
        sizes = np.array(counts.rows, float)
        rates = expected([guess_of(name) for name in counts.names], counts.asked, counts.unsafe)
        chances = left / max(left.sum(), 1)
        pays = np.divide(left, rows * chances, out=np.zeros(len(sizes)), where=chances > 0)
        more = more_votes(_after(votes, np.array([bound]), rows), pays.tolist(), chances.tolist(), rates.tolist())
    return Outlook(len(votes), low, high, bound, below, more)


def _after(votes: Iterable[Vote], bounds: Any, rows: int) -> Wealth:
    wealth = Wealth(bounds, max(rows, 1))
    for vote in votes:
        wealth.take(vote)
    return wealth


def _in_order(sample: Iterable[Mapping[str, Any]], majorities: Mapping[str, Any]) -> Iterator[Vote]:
    """Votes for the places of the draw, as far as they are filled.

    A place is one of its stratum, and the stratum's rows came in random order: the first row of it that has a majority
    fills the first place. So a row that waits, or that people are unsure of, holds nothing up but its stratum's last.
    """
    queues = defaultdict(list)
    own = [row for row in sample if row["accepted"]]
    for row in sorted(own, key=lambda row: (row["place"] is None, row["place"] or 0)):
        if row["response_id"] in majorities:
            queues[row["stratum"]].append(majorities[row["response_id"]] == "no")
    for queue in queues.values():
        queue.reverse()
    for row in sorted((row for row in own if row["place"] is not None), key=lambda row: row["place"]):
        if not queues[row["stratum"]]:
            return
        fair = bool(np.isfinite(row["most"]))
        most = row["most"] if fair else row["pays"]
        yield Vote(row["pays"], most, fair, queues[row["stratum"]].pop())
