"""A budget of votes: which rows to ask about in rounds, each planned from the votes before it.

Reads what `sample.py` reads, reviews and review_frame; writes review_frame.parquet, a row each row that could be asked
about, as the run was when the first round was drawn: what it says of stratum and acceptance holds for all rounds.

Accepted rows fall into strata by risk: `high` where a judge flags or judges disagree, `middle` where a row was repaired
or a verdict is missing, `low` otherwise; too small a stratum joins the next lower one. Where strata do not pay
(`estimates.plan`), all accepted rows are one stratum, `any`, and nothing is planned. Rejected rows, which judge the
judges, get their share by number, and a quarter at most.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curation.review.estimates.plan import EXPECTED, allocation, cards, expected, pays_to_stratify
from curation.review.majority import majorities_on, votes_on
from curation.review.questions import SAFE
from curation.review.sample import Wanted, draw_overlap, in_order, sample_of
from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config

# So many pushes spend a budget over strata.
ROUNDS = 3
FRAME = pa.schema([("response_id", pa.string()), ("stratum", pa.string()), ("accepted", pa.bool_())])
_TABLE = "review_frame"
_REJECTED_SHARE = 0.25
# A stratum that can expect fewer votes than this joins the next lower one.
_FEWEST = 4
# The share of a round that must have votes before the next one is planned.
_ANSWERED = 0.8


class Counts(NamedTuple):
    """Accepted rows by stratum: all, drawn, with a majority of blind votes, unsafe by it."""

    names: list[str]
    rows: list[int]
    drawn: list[int]
    asked: list[int]
    unsafe: list[int]


def frame_of(run: RunFolder) -> list[dict[str, Any]] | None:
    """The rows that a budget is drawn from; None where the run was not pushed with one."""
    return run.read(_TABLE).to_pylist() if run.table_path(_TABLE).exists() else None


def counts_by_stratum(
    frame: Sequence[Mapping[str, Any]], sample: Sequence[Mapping[str, Any]], blind: Sequence[Mapping[str, Any]]
) -> Counts:
    """How far each stratum of accepted rows has got."""
    majorities = majorities_on(blind, SAFE)
    rows = Counter(row["stratum"] for row in frame if row["accepted"])
    own = list({row["response_id"]: row for row in sample if row["accepted"]}.values())
    drawn = Counter(row["stratum"] for row in own)
    asked = Counter(row["stratum"] for row in own if row["response_id"] in majorities)
    unsafe = Counter(row["stratum"] for row in own if majorities.get(row["response_id"]) == "no")
    names = sorted(rows)
    return Counts(names, *([each[name] for name in names] for each in (rows, drawn, asked, unsafe)))


def guess_of(stratum: str) -> float:
    """The share of unsafe rows to expect before a vote."""
    return EXPECTED.get(stratum.split("/")[0], 0.01)


def draw_round(
    run: RunFolder, rows: list[dict[str, Any]], wanted: Wanted, min_votes: int
) -> tuple[list[dict[str, Any]], str]:
    """The sample with its next round and rows in place of those that people were unsure of; what was done, and why.

    Args:
        run: A run that is checked.
        rows: Every row that could be asked about (`sample.population`).
        min_votes: People that each row needs.

    Raises:
        UserError: there is nothing to ask about, or the run's rows are not those of the first round.
    """
    assert wanted.votes is not None
    sample = sample_of(run)
    number = int(wanted.votes / (min_votes + wanted.overlap))
    if not rows or not number:
        why = f"{wanted.votes} votes are too few for a row" if rows else "none of its rows was written by a teacher"
        raise UserError(f"{run.path} has no rows to review: {why}.")
    frame = frame_of(run) or _new_frame(rows, number)
    if missing := {row["response_id"] for row in frame} - {row["response_id"] for row in rows}:
        raise UserError(
            f"{len(missing)} rows that {run.name}'s review was drawn from are gone, and votes on them say "
            "nothing of the run as it is. Begin a new review by deleting review_sample.parquet and "
            f"review_frame.parquet from {run.path}."
        )
    reviews = run.read("reviews").to_pylist() if run.table_path("reviews").exists() else []
    drawn = {row["response_id"] for row in sample}
    blind = [row for row in reviews if row["response_id"] in drawn and not row["assisted"]]
    deal = _Deal(run, rows, frame, sample, wanted.assisted)
    replaced = deal.replace(blind)
    planned = len(deal.places())
    goal = _goal(deal.strata(), planned, number)
    answered = len({row["response_id"] for row in blind} & drawn)
    if len(deal.strata()) > 1 and goal > planned > 0 and answered < _ANSWERED * len(drawn):
        words = (
            f"The next round waits: {answered} of {len(drawn)} rows have votes that were pulled, {_ANSWERED:.0%} are "
            f"needed. Once people have voted: saferthoughts review pull {run.name}"
        )
    else:
        words = deal.round(goal - planned, number, counts_by_stratum(frame, sample, blind))
    if replaced:
        words += f"; {replaced} rows in place of those that people are unsure of"
    draw_overlap(
        [row for row in deal.sample if row["response_id"] not in drawn], deal.sample, wanted.overlap, deal.seed
    )
    run.write(_TABLE, pa.Table.from_pylist(frame, schema=FRAME))
    return deal.sample, words


def _goal(strata: Sequence[str], planned: int, number: int) -> int:
    """How many rows are to be drawn when this round is: all where nothing is planned, else the next third."""
    if len(strata) == 1:
        return number
    return next((end for part in range(1, ROUNDS + 1) if (end := number * part // ROUNDS) > planned), number)


def _new_frame(rows: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    levels = {row["response_id"]: _level(row) for row in rows}
    accepted = [row["response_id"] for row in rows if row["accepted"]]
    votes = number * max(len(accepted) / len(rows), 1 - _REJECTED_SHARE)
    for level, lower in (("high", "middle"), ("middle", "low")):
        if sum(levels[name] == level for name in accepted) * votes < _FEWEST * len(accepted):
            levels = {name: lower if own == level else own for name, own in levels.items()}
    sizes = Counter(levels[name] for name in accepted)
    names = sorted(sizes)
    strata = len(sizes) > 1 and pays_to_stratify([sizes[n] for n in names], [EXPECTED[n] for n in names], int(votes))
    return [
        {
            "response_id": row["response_id"],
            "stratum": f"{levels[row['response_id']] if strata else 'any'}/accepted" if row["accepted"] else "rejected",
            "accepted": row["accepted"],
        }
        for row in rows
    ]


def _level(row: Mapping[str, Any]) -> str:
    if row["reason"] in ("disagreement", "flagged"):
        return "high"
    missing = row["verdict_reason"] or row["safety_reason"] or row["lack_of_safety_awareness"] is None
    return "middle" if row["reason"] == "repaired" or missing else "low"


class _Deal:
    """Rows dealt to the sample, from each stratum in the order of its draw."""

    def __init__(
        self,
        run: RunFolder,
        rows: Sequence[dict[str, Any]],
        frame: Sequence[Mapping[str, Any]],
        sample: list[dict[str, Any]],
        assisted: bool,
    ) -> None:
        self.seed = load_config(run).seed
        self.rows = {row["response_id"]: row for row in rows}
        self.sample = list(sample)
        self.assisted = assisted
        self.sizes = Counter(row["stratum"] for row in frame)
        self.accepted = {row["stratum"]: row["accepted"] for row in frame}
        drawn = {row["response_id"] for row in sample}
        self.queues: dict[str, list[str]] = {name: [] for name in self.sizes}
        for row in sorted(frame, key=lambda row: in_order(self.seed, row["response_id"]), reverse=True):
            if row["response_id"] not in drawn:
                self.queues[row["stratum"]].append(row["response_id"])

    def strata(self) -> list[str]:
        """The strata of accepted rows."""
        return sorted(name for name in self.sizes if self.accepted[name])

    def places(self) -> list[dict[str, Any]]:
        """The rows that were dealt for themselves, and not in place of others; each once, though a tie has it twice."""
        return list({row["response_id"]: row for row in self.sample if row["round"] is not None}.values())

    def take(self, stratum: str, **facts: Any) -> None:
        """Deal a stratum's next row."""
        row = self.rows[self.queues[stratum].pop()]
        self.sample.append(
            {
                **{name: row[name] for name in ("response_id", "reason", "config")},
                "stratum": stratum,
                "accepted": self.accepted[stratum],
                "stratum_rows": self.sizes[stratum],
                "overlap": False,
                "assisted": self.assisted,
                "sent": False,
                **dict.fromkeys(("probability", "round", "place", "pays", "most")),
                **facts,
            }
        )

    def replace(self, blind: Sequence[Mapping[str, Any]]) -> int:
        """Deal a row in place of each one on which all that voted are unsure."""
        unsure = {row["response_id"] for row in blind} - votes_on(blind, SAFE).keys()
        once = {row["response_id"]: row for row in self.sample}
        owed = Counter(once[name]["stratum"] for name in unsure)
        owed.subtract(Counter(row["stratum"] for row in once.values() if row["round"] is None))
        count = 0
        for stratum, number in sorted(owed.items()):
            for _ in range(min(max(number, 0), len(self.queues[stratum]))):
                self.take(stratum, probability=1 / len(self.queues[stratum]))
                count += 1
        return count

    def round(self, number: int, total: int, counts: Counts) -> str:
        """Deal so many rows, and say how and why."""
        rejected = sum(self.sizes[name] for name in self.sizes if not self.accepted[name])
        left_over = len(self.queues.get("rejected", ()))
        share = min(_REJECTED_SHARE, rejected / sum(self.sizes.values()))
        others = min(round(number * share), left_over)
        left = np.array([len(self.queues[name]) for name in counts.names])
        own = min(number - others, int(left.sum()))
        others = min(number - own, left_over)
        if own + others <= 0:
            return "The budget is spent: every row of it is drawn"
        part = max((row["round"] or 0 for row in self.sample), default=0) + 1
        first = len(self.sample)
        if own:
            self._deal_accepted(part, own, round(total * (1 - share)), counts, left)
        for at in range(others):  # spread among the accepted ones, since people see the rows in this order
            self.take("rejected", round=part, probability=others / left_over)
            self.sample.insert(first + (at + 1) * own // (others + 1) + at, self.sample.pop())
        how = "a plain random draw, since strata would not pay"
        if len(counts.names) > 1:
            drawn = Counter(row["stratum"] for row in self.places() if row["round"] == part)
            spread = ", ".join(f"{drawn[name]} of {name.split('/')[0]} risk" for name in counts.names)
            how = f"{spread}, {'a pilot in proportion' if part == 1 else 'planned from the votes so far'}"
        return f"Round {part}: {own} accepted rows ({how}) and {others} rejected ones"

    def _deal_accepted(self, part: int, number: int, total: int, counts: Counts, left: Any) -> None:
        sizes, asked = np.array(counts.rows, float), np.array(counts.asked, float)
        rates = expected([guess_of(name) for name in counts.names], asked, counts.unsafe)
        targets = sizes if part == 1 else allocation(sizes, rates, max(total, number))
        deck = cards(left, targets, counts.drawn, number).astype(int)
        rng = random.Random(content_id(self.seed, "deck", part))
        rows = sizes.sum()
        first = max((row["place"] or 0 for row in self.sample), default=0) + 1
        dealt = []
        for place in range(first, first + number):
            left = np.array([len(self.queues[name]) for name in counts.names])
            at = rng.choices(range(len(deck)), weights=deck.tolist())[0]
            pays = np.divide(left * deck.sum(), rows * deck, out=np.full(len(deck), np.inf), where=deck > 0)
            most = float(pays[left > 0].max())
            # Where a stratum with rows could not have been next, a vote is no fair bet.
            self.take(counts.names[at], round=part, place=place, pays=float(pays[at]), most=most)
            dealt.append(counts.names[at])
            deck[at] -= 1
        shares = Counter(dealt)
        before = {name: len(self.queues[name]) + shares[name] for name in counts.names}
        for row in self.sample:
            if row["round"] == part and row["accepted"]:
                row["probability"] = shares[row["stratum"]] / before[row["stratum"]]
