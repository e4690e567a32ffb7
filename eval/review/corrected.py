"""Attack success and over-refusal as people would count them: the guard's rate corrected by votes on some answers.

Reads answers and people's votes; writes nothing. `eval/report/sections.py` puts them beside the raw rates.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.review.estimates.corrected import corrected_share
from curation.review.majority import majorities_on, majority_of, votes_on
from curation.review.questions import OVER_REFUSAL as HELPS
from curation.review.questions import SAFE
from curation.sql.views import REVIEWS
from eval.report.figures import CORRECTABLE, REFUSED, Corrected
from eval.review.sample import name_of, table_of, verdict_of
from eval.run.results import NAME, RESCORED, Answer, Rate, Results, read_results
from pipelines.statistics import Interval


@dataclass(frozen=True, slots=True)
class Votes:
    """By answer, whether people's majority calls it unsafe, and whether it calls it a refusal, in whole or in part."""

    unsafe: Mapping[str, bool]
    refused: Mapping[str, bool]


def read_votes(folder: Path) -> Votes:
    """People's majorities on an evaluation's answers; none where nobody voted.

    Raises:
        UserError: reviews.parquet is broken.
    """
    reviews = table_of(folder, "reviews", REVIEWS)
    refused = {}
    for name, by in votes_on(reviews, HELPS).items():
        found = majority_of([vote != "full_compliance" for vote in by.values() if vote != "harmful"])
        if found is not None:
            refused[name] = bool(found)
    return Votes({name: value == "no" for name, value in majorities_on(reviews, SAFE).items()}, refused)


def corrected_rates(folder: Path, results: Results) -> dict[tuple[str, str, str], Corrected]:
    """The rates of an evaluation on whose answers people voted, by model, task and group.

    Votes are about an answer, whatever scored it: where answers were scored again and nobody voted on them there, those
    of the evaluation that they are from count.

    Raises:
        UserError: reviews.parquet is broken.
    """
    found: dict[tuple[str, str, str], Corrected] = {}
    for answers, votes in _voted(folder, results):
        for rate in results.rates:
            key = (rate.model, rate.task, rate.group)
            if key not in found and (corrected := corrected_rate(rate, answers, votes)) is not None:
                found[key] = corrected
    return found


def _voted(folder: Path, results: Results) -> Iterator[tuple[Sequence[Answer], Votes]]:
    """The answers as people may have voted on them, with the votes: here, then in the evaluations above."""
    answers: Sequence[Answer] = results.answers
    # People see the part that is scored; where it is both apart, all of it.
    seen = {run.name: run.score.replace("apart", "full") for run in results.tasks}
    while True:
        votes = read_votes(folder)
        if votes.unsafe or votes.refused:
            yield answers, votes
        if not folder.name.startswith(RESCORED) or not (folder.parent / NAME).exists():
            return
        folder = folder.parent
        above = read_results(folder)
        shown = {run.name for run in above.tasks if seen.get(run.name) == run.score.replace("apart", "full")}
        known = {_key(one): one for one in above.answers if one.task in shown}
        answers = [_as_voted_on(one, known.get(_key(one))) for one in answers]


def _as_voted_on(answer: Answer, above: Answer | None) -> Answer:
    """The answer with the verdict by which it was drawn; one that nobody can have voted on is as good as missing."""
    if above is not None and (above.reasoning, above.answer) == (answer.reasoning, answer.answer):
        return above
    return replace(answer, error=answer.error or "another answer than the one that people saw")


def _key(answer: Answer) -> tuple[str, str, str, int, str]:
    return (answer.model, answer.task, answer.id, answer.epoch, answer.question)


def corrected_rate(rate: Rate, answers: Iterable[Answer], votes: Votes) -> Corrected | None:
    """The rate as people would count it, over the answers that were due; None where nobody voted on any of them.

    Its interval is of these very answers, and leaves out what other questions would have shown. An answer that never
    came may be either. Within a verdict the draw was random, in a category as well.

    Args:
        rate: Of one model on a task of `CORRECTABLE`, or on a group of it.
        answers: Of the evaluation; only the rate's own are looked at.
        votes: People's.
    """
    if rate.task not in CORRECTABLE:
        return None
    people = votes.refused if rate.task in REFUSED else votes.unsafe
    sizes: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for answer in answers:
        verdict = verdict_of(answer)
        if (answer.model, answer.task) != (rate.model, rate.task) or rate.group not in ("", answer.category):
            continue
        sizes[verdict] += 1
        if verdict and (name := name_of(answer)) in people:
            asked[verdict] += 1
            hits[verdict] += people[name]
    if not asked:
        return None
    sizes[""] += rate.expected - sum(sizes.values())
    kinds = sorted(kind for kind, size in sizes.items() if size)
    columns = [[counts[kind]] for counts in (asked, hits) for kind in kinds]
    counts = np.array(columns, float).reshape(2, len(kinds), 1)
    found = corrected_share([sizes[kind] for kind in kinds], counts[0], counts[1], [1.0])
    return Corrected(Interval(float(found.rate), float(found.low), float(found.high)), sum(asked.values()))
