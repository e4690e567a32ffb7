"""A reasoning as labelled sentences: a sentence is false where a judge's quotation touches it.

Reads and writes nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pipelines.judges.spans import quoted_in
from pipelines.sentences import sentences


class Steps(NamedTuple):
    """The sentences of a reasoning, of each whether no quotation touches it, and the first that one does."""

    completions: list[str]
    labels: list[bool]
    first_wrong: int | None


def labelled(reasoning: str, quotes: Iterable[Mapping[str, Any]], faults: Collection[str]) -> Steps:
    """Label the sentences of a reasoning.

    Args:
        quotes: Of each judge, label to what it quoted.
        faults: The labels that hold by the verdict; quotations for others are not heeded.
    """
    spans = [
        span
        for judge in quotes
        for label, quote in judge.items()
        if label in faults and isinstance(quote, str)
        for span in quoted_in(reasoning, quote)
    ]
    places = sentences(reasoning)
    labels = [not any(place.touches(*span) for span in spans) for place in places]
    first = labels.index(False) if False in labels else None
    return Steps([reasoning[place.start : place.end] for place in places], labels, first)
