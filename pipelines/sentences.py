"""A text cut into its sentences, each with its place: what labels by sentence and judges' spans refer to.

Reads and writes nothing. Within a line sentencex decides, by the rules of many languages; a fenced block of code is one
piece, as is a list's item up to its own full stops, and a number that only counts an item goes with it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
# "1." or "b)" or "-", alone: what counts an item.
_COUNTER = re.compile(r"\s*(?:[(\[]?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})[.)\]]|[-*+•#]+)\s*")

# "no." is a number's abbreviation to sentencex; before a word it is an answer.
_AFTER_NO = re.compile(r"(?<=\bno\. )(?=[^\W\d])")


class Sentence(NamedTuple):
    """A sentence's place in its text, in characters: `text[start:end]`, the white space behind it left out."""

    start: int
    end: int

    def touches(self, start: int, end: int) -> bool:
        """Whether it shares a character with `text[start:end]`."""
        return self.start < end and start < self.end


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text, in order; they overlap nowhere, and all but white space is in one of them.

    >>> text = "Hm, e.g. Dr. Smith asks. I refuse!\\n1. Say no.\\n2. Name help."
    >>> [text[start:end] for start, end in sentences(text)]
    ['Hm, e.g. Dr. Smith asks.', 'I refuse!', '1. Say no.', '2. Name help.']
    """
    found = []
    at = 0
    for piece in _joined(_pieces(text)):
        body = piece.strip()
        if body:
            start = at + piece.index(body)
            found.append(Sentence(start, start + len(body)))
        at += len(piece)
    return tuple(found)


def sentence_at(places: tuple[Sentence, ...], start: int, end: int | None = None) -> int | None:
    """The number of the first sentence that `text[start:end]` touches, or the character `text[start]`; None where there
    is none: between sentences, or behind the last."""
    stop = start + 1 if end is None else end
    return next((number for number, place in enumerate(places) if place.touches(start, stop)), None)


def _pieces(text: str) -> Iterator[str]:
    """Pieces that make up the whole text: blocks of code, and of every other line its sentences."""
    from sentencex import segment

    block, fence = "", ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if fence:
            block += line
            if mark and mark[1].startswith(fence):
                yield block
                block, fence = "", ""
        elif mark:
            block, fence = line, mark[1]
        elif line.strip():
            parts = [piece for part in segment("en", line) for piece in _AFTER_NO.split(part)]
            # It drops white space at some ends: then the line stays whole.
            yield from parts if "".join(parts) == line else [line]
        else:
            yield line
    if block:
        yield block


def _joined(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces, a bare counter together with what it counts."""
    counter = ""
    for piece in pieces:
        if _COUNTER.fullmatch(counter + piece) and "\n" not in piece:
            counter += piece
            continue
        yield counter + piece
        counter = ""
    if counter:
        yield counter
