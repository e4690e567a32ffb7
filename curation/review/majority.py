"""What people's votes on a row come to."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

# Votes that say nothing on a question.
_ABSTAIN = (None, "unsure")


def votes_on(reviews: Sequence[Mapping[str, Any]], question: str) -> dict[str, dict[str, Any]]:
    """For each row that has any, each person's vote on a question; "unsure" is none."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in reviews:
        if row[question] not in _ABSTAIN:
            found[row["response_id"]][row["annotator"]] = row[question]
    return dict(found)


def majorities_on(reviews: Sequence[Mapping[str, Any]], question: str) -> dict[str, Any]:
    """What more people say of a row than anything else, for each row that has no tie."""
    found = {name: majority_of(list(by.values())) for name, by in votes_on(reviews, question).items()}
    return {name: value for name, value in found.items() if value is not None}


def majority_of(votes: Sequence[Any]) -> Any:
    """What more people say than anything else; None for a tie."""
    ranked = Counter(votes).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]
