"""Two texts with the words that differ, by difflib.

First sentence by sentence, then word by word within what was replaced, so that long texts of few words cost no square
of their length. Reads and writes nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_SENTENCES = re.compile(r"[^.!?\n]*[.!?\n]*\s*")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
# Pieces of each side that are compared; a longer stretch is shown as replaced whole.
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one text; `differs` where the other has something else, or nothing, in its place."""

    text: str
    differs: bool


def changed(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces; the pieces of each are the whole of it.

    >>> [[piece.text for piece in side if piece.differs] for side in changed("One. I can.", "One. I cannot.")]
    [['can'], ['cannot']]
    """
    left: list[Piece] = []
    right: list[Piece] = []
    for same, one, other in _blocks(_SENTENCES.findall(first), _SENTENCES.findall(second)):
        finer = [(True, one, other)] if same else _blocks(_WORDS.findall(one), _WORDS.findall(other))
        for equal, mine, theirs in finer:
            for side, text in ((left, mine), (right, theirs)):
                if text:
                    side.append(Piece(text, not equal))
    return left, right


def _blocks(first: Sequence[str], second: Sequence[str]) -> list[tuple[bool, str, str]]:
    """Stretches in their order: whether they are the same, and both texts."""
    if max(len(first), len(second)) > _MOST:
        return [(first == second, "".join(first), "".join(second))]
    found = SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    return [(tag == "equal", "".join(first[a:b]), "".join(second[c:d])) for tag, a, b, c, d in found]
