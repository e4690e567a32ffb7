"""A reasoning as labelled sentences: a sentence is false where a judge's quotation touches it.

Reads and writes nothing.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pipelines.judges.patterns import joined_spans, plain
from pipelines.sentences import sentences


class Steps(NamedTuple):
    """The sentences of a reasoning, of each whether no quotation touches it, and the first that one does."""

    completions: list[str]
    labels: list[bool]
    first_wrong: int | None


def labelled(reasoning: str, quotes: Iterable[Mapping[str, Any]], faults: Collection[str]) -> Steps:
    """Label the sentences of a reasoning.

    Args:
        reasoning: The reasoning.
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
    labels = [not any(place.start < end and start < place.end for start, end in spans) for place in places]
    first = labels.index(False) if False in labels else None
    return Steps([reasoning[place.start : place.end] for place in places], labels, first)


def quoted_in(text: str, quote: str) -> list[tuple[int, int]]:
    """Where a quotation is in a text, in characters: as a whole, or each of the spans that it joins.

    Judges set spaces, quotation marks and capitals anew.
    """
    for parts in ([plain(quote)], joined_spans(quote)):
        found = [match.span() for part in parts if part and (match := _pattern(part).search(text))]
        if found:
            return found
    return []


def _pattern(part: str) -> re.Pattern[str]:
    words = (_MARKS.sub(_any_mark, re.escape(word)) for word in part.split())
    return re.compile(r"\s+".join(words), re.IGNORECASE)


_MARKS = re.compile("['\"\u2018\u2019\u201c\u201d]")


def _any_mark(mark: re.Match[str]) -> str:
    return "['\u2018\u2019]" if mark[0] in "'\u2018\u2019" else '["\u201c\u201d]'
