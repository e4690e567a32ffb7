"""Where a judge's quotation stands in a response: its place, the sentence that it is in, and the text with it marked.

Reads and writes nothing. judgements.parquet keeps `spans_of` for each judgement; pages mark by `marked`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pipelines.judges.patterns import joined_spans, plain
from pipelines.records import PATTERNS
from pipelines.sentences import sentence_at, sentences

_STRAIGHT = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}


@dataclass(frozen=True, slots=True)
class MarkedPiece:
    """A piece of a text; `label` is the label whose evidence is in this sentence, "" for the rest."""

    text: str
    label: str


def quoted_in(text: str, quote: str) -> list[tuple[int, int]]:
    """Where a quotation is in a text, in characters: character for character where it can be, else as a whole or as
    each of the spans that it joins by an ellipsis, white space, quotation marks and capitals set anew; none where it is
    not there.

    >>> text = "Hm. Should  I help \u201cthem\u201d? No."
    >>> [text[start:end] for start, end in quoted_in(text, 'should I help "them"?')]
    ['Should  I help “them”?']
    """
    if whole := _place(text, quote):
        return [whole]
    return [place for part in joined_spans(quote) if (place := _place(text, part))]


def _place(text: str, quote: str) -> tuple[int, int] | None:
    exact, wanted = quote.strip(), plain(quote).casefold()
    if not wanted:
        return None
    if (start := text.find(exact)) >= 0:
        return start, start + len(exact)
    folded, places = _folded(text)
    at = folded.find(wanted)
    return (places[at], places[at + len(wanted) - 1] + 1) if at >= 0 else None


@lru_cache(maxsize=4)
def _folded(text: str) -> tuple[str, list[int]]:
    """A text with white space, marks and capitals as `plain` has them, and where each of its characters came from; by
    characters and not by a pattern, whose search takes the square of what repeats itself."""
    signs: list[str] = []
    places: list[int] = []
    for place, sign in enumerate(text):
        folded = " " if sign.isspace() else _STRAIGHT.get(sign) or sign.casefold()
        if folded != " " or signs[-1:] != [" "]:
            signs += folded
            places += [place] * len(folded)
    return "".join(signs), places


def spans_of(evidence: Mapping[str, str], reasoning: str, answer: str) -> str:
    """Each quotation of a judge of the patterns as JSON: `label`, `part` (reasoning, answer, or null where it is in
    neither), `start` and `end` in characters, and the number of its sentence of `sentences` from 0, which begins at
    `sentence_start`.

    The reasoning is looked through first, for an inconsistency the answer. A quotation that stands there several times
    is the first of them.
    """
    cut = lru_cache(sentences)
    found: list[dict[str, str | int | None]] = []
    for label, quote in evidence.items():
        parts = [("reasoning", reasoning), ("answer", answer)]
        parts = parts[::-1] if label == "inconsistency" else parts
        # As a whole in one of the two, or span by span in either.
        whole = next(((*part, *place) for part in parts if (place := _place(part[1], quote))), None)
        places = [whole] if whole else [
            next(((*part, *place) for part in parts if (place := _place(part[1], span))), None)
            for span in joined_spans(quote)
        ]  # fmt: skip
        if not any(places):
            found.append({"label": label, "part": None})
        for name, text, start, end in filter(None, places):
            number = sentence_at(cut(text), start, end)
            assert number is not None, "a quotation has a character that is no space"
            found.append(
                {"label": label, "part": name, "start": start, "end": end, "sentence": number,
                 "sentence_start": cut(text)[number].start, "sentences": len(cut(text))}
            )  # fmt: skip
    return json.dumps(found)


def marked(text: str, evidence: Iterable[tuple[str, str]]) -> list[MarkedPiece]:
    """A text cut where the sentences begin and end that hold a label's quotation; of several labels of a sentence the
    first is named."""
    quoted = [(place, label) for label, quote in evidence if label in PATTERNS for place in quoted_in(text, quote)]
    if not quoted:
        return [MarkedPiece(text, "")] if text else []
    pieces: list[MarkedPiece] = []
    at = 0
    for place in sentences(text):
        label = next((label for span, label in quoted if place.touches(*span)), "")
        if label:
            pieces += [MarkedPiece(text[at : place.start], "")] if at < place.start else []
            pieces.append(MarkedPiece(text[place.start : place.end], label))
            at = place.end
    return [*pieces, MarkedPiece(text[at:], "")] if at < len(text) else pieces


def with_marks(text: str, evidence: Iterable[tuple[str, str]], name: Callable[[str], str]) -> str:
    """The text as plain text, a line's worth of signs around each marked sentence: `>> label: sentence <<`."""
    return "".join(
        f">> {name(piece.label)}: {piece.text} <<" if piece.label else piece.text for piece in marked(text, evidence)
    )
