"""Requests without the jailbreak templates around them, for whatever compares requests. Reads and writes nothing."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.overlap.windows import windows, words_of

_TEMPLATE_WORDS, _TEMPLATE_TIMES = 12, 3
# Less is no request.
_LEAST_WORDS = 3


def bare_requests(prompts: pa.Table) -> list[str]:
    """Each prompt without its jailbreak template: by the run's own knowledge, or else without the words that several
    prompts begin or end with."""
    texts = prompts["text"].to_pylist()
    known = prompts["behaviour"].to_pylist()
    unknown_ones = [place for place, text in enumerate(texts) if known[place] == text]
    stripped = strip_templates([texts[place] for place in unknown_ones])
    requests = list(known)
    for place, text in zip(unknown_ones, stripped, strict=True):
        requests[place] = text
    return requests


def strip_templates(texts: Sequence[str]) -> list[str]:
    """The texts without what at least three of them have in common, in stretches of twelve words and more: first at
    their beginnings and ends, then between, for templates that give the request more than once."""
    return _without_shared(_without_ends(texts))


def _without_shared(texts: Sequence[str]) -> list[str]:
    """The longest stretch of each text that is no template's; the whole text where hardly anything would be left."""
    found = [words_of(text) for text in texts]
    begins = np.concatenate([[0], np.cumsum([len(words) for words in found])]).astype(np.int64)
    pieces = list(windows(pa.chunked_array([pa.array(texts, pa.string())]), _TEMPLATE_WORDS))
    if not pieces:
        return list(texts)
    hashes = np.concatenate([piece.hashes for piece in pieces])
    rows = np.concatenate([piece.rows for piece in pieces])
    positions = np.concatenate([piece.positions for piece in pieces])
    # A window counts once for each distinct text: one that stands several times is no template.
    distinct = np.array([number == first for number, first in enumerate(_first_places(texts))])
    pairs = np.unique(np.stack([hashes, rows.astype(np.uint64)])[:, distinct[rows]], axis=1)
    common, times = np.unique(pairs[0], return_counts=True)
    # Of many texts more than three may be one request in several templates.
    shared = np.isin(hashes, common[times >= max(_TEMPLATE_TIMES, len(texts) // 100)])
    # A shorter text has one window, of all its words.
    shared &= np.diff(begins)[rows] >= _TEMPLATE_WORDS
    starts = begins[rows[shared]] + positions[shared]
    steps = np.bincount(starts, minlength=begins[-1] + 1) - np.bincount(
        starts + _TEMPLATE_WORDS, minlength=begins[-1] + 1
    )
    covered = np.cumsum(steps) > 0
    return [
        _longest_left(text, words, covered[begin : begin + len(words)])
        for text, words, begin in zip(texts, found, begins[:-1].tolist(), strict=True)
    ]


def _first_places(texts: Sequence[str]) -> list[int]:
    places: dict[str, int] = {}
    return [places.setdefault(text, number) for number, text in enumerate(texts)]


def _longest_left(text: str, words: Sequence[tuple[str, int, int]], covered: npt.NDArray[np.bool_]) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], covered, [True]]).astype(np.int8)))
    runs = [(int(end - begin), -int(begin)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    length, begin = max(runs, default=(0, 0))
    if length < _LEAST_WORDS or length == len(words):
        return text
    left = words[-begin : -begin + length]
    return text.encode()[left[0][1] : left[-1][2]].decode("utf-8", "replace")


def _without_ends(texts: Sequence[str]) -> list[str]:
    """The texts without what at least three of them, beyond twelve words, begin or end with in common."""
    words = [words_of(text) for text in texts]
    plain = [[word for word, _, _ in found] for found in words]
    heads = _common(plain)
    tails = _common([found[::-1] for found in plain])
    stripped = []
    for text, found, head, tail in zip(texts, words, heads, tails, strict=True):
        kept = found[head : len(found) - tail] if head + tail < len(found) else found
        stripped.append(text.encode()[kept[0][1] : kept[-1][2]].decode("utf-8", "replace") if kept else text)
    return stripped


def _common(words: Sequence[list[str]]) -> list[int]:
    """For each list of words, how many of its first are a template's: shared by enough different lists."""
    order = sorted(range(len(words)), key=lambda place: words[place])
    distinct = [place for number, place in enumerate(order) if not number or words[place] != words[order[number - 1]]]
    shared = [_prefix(words[one], words[other]) for one, other in pairwise(distinct)]
    lengths: dict[tuple[str, ...], int] = {}
    around = _TEMPLATE_TIMES - 1
    for number, place in enumerate(distinct):
        runs = [shared[begin : begin + around] for begin in range(max(0, number - around), number + 1)]
        best = max((min(run) for run in runs if len(run) == around), default=0)
        lengths[tuple(words[place])] = best if best >= _TEMPLATE_WORDS else 0
    return [lengths[tuple(found)] for found in words]


def _prefix(one: list[str], other: list[str]) -> int:
    length = 0
    for word, another in zip(one, other, strict=False):
        if word != another:
            break
        length += 1
    return length
