"""Texts as hashed windows of words, many megabytes a second: for duplicates and contamination.

A word is a run of ASCII letters and digits and of bytes beyond ASCII; ASCII letters are compared without case. Hashes
are polynomials modulo 2^64 over bytes and then over words, so every window of a text costs the same whatever its size.
Two windows with one hash are almost surely the same words; who needs certainty compares `words_of`.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")
_BASE_OF_BYTES = 0x9E3779B97F4A7C15
_BASE_OF_WORDS = 0xC2B2AE3D27D4EB4F
_CHUNK_BYTES = 200_000


class Windows(NamedTuple):
    """The windows of some rows: one hash each, the row that it is of, and at which of the row's words it begins."""

    hashes: Hashes
    rows: Indices
    positions: Indices


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The words of a text as they are hashed, each with where it begins and ends in the text's UTF-8 bytes."""
    found = _WORD.finditer(text.encode())
    return [(match.group().decode("utf-8", "replace").lower(), match.start(), match.end()) for match in found]


def span_of(text: str, position: int, size: int) -> str:
    """The piece of a text that the window of `size` words from word `position` covers."""
    words = words_of(text)[position : position + size]
    return text.encode()[words[0][1] : words[-1][2]].decode("utf-8", "replace") if words else ""


def windows(texts: pa.ChunkedArray | pa.Array, size: int, threads: int = 2) -> Iterator[Windows]:
    """All windows of `size` words of the texts, in the order of rows, some hundred kilobytes of text at a time.

    A text of fewer words has one window of all of them; a text without words, or a null, has none.
    """
    pieces = list(_pieces(texts))
    with ThreadPoolExecutor(threads) as pool:
        # numpy lets go of the interpreter while it computes. Not all pieces at once: results wait to be taken.
        for begin in range(0, len(pieces), 2 * threads):
            yield from pool.map(lambda piece: _hashed(piece[0], piece[1], size), pieces[begin : begin + 2 * threads])


def _pieces(texts: pa.ChunkedArray | pa.Array) -> Iterator[tuple[pa.Array, int]]:
    """Arrays of about `_CHUNK_BYTES`, each with the number of its first row."""
    first = 0
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        array = chunk.cast(pa.large_string()).fill_null("")
        ends = np.cumsum(pc.binary_length(array).to_numpy(zero_copy_only=False))
        cuts = [0]
        while cuts[-1] < len(array):
            before = ends[cuts[-1] - 1] if cuts[-1] else 0
            cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + _CHUNK_BYTES))))
        for begin, end in pairwise(cuts):
            yield array[begin:end], first + begin
        first += len(array)


def _hashed(array: pa.Array, first: int, size: int) -> Windows:
    hashes, rows = _word_hashes(array)
    counts = np.bincount(rows, minlength=len(array)).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    # Shorter texts have one window as long as they are.
    lengths = np.minimum(counts[rows], size)
    positions = np.arange(len(hashes), dtype=np.int64) - starts[rows]
    begins = np.flatnonzero(positions + lengths <= counts[rows])
    sums = _sums(hashes, _BASE_OF_WORDS)
    found = (sums[begins + lengths[begins]] - sums[begins]) * _powers(len(hashes) + 1, _inverse(_BASE_OF_WORDS))[begins]
    return Windows(_mixed(found + lengths[begins].astype(np.uint64)), rows[begins] + first, positions[begins])


def _word_hashes(array: pa.Array) -> tuple[Hashes, Indices]:
    """The hash of every word, and the row that it is of."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    if data is None or offsets[0] == offsets[-1]:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    codes = _LETTERS[np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]]
    ends_of_rows = offsets[1:] - offsets[0]
    inside = codes != 0
    # A border lies before each byte where a row begins, and after the last byte.
    border = np.zeros(len(codes) + 1, bool)
    border[0] = True
    border[ends_of_rows] = True
    begins = np.flatnonzero(inside & (border[:-1] | np.concatenate(([True], ~inside[:-1]))))
    ends = np.flatnonzero(inside & (border[1:] | np.concatenate((~inside[1:], [True])))) + 1
    sums = _sums(codes.astype(np.uint64), _BASE_OF_BYTES)
    hashes = (sums[ends] - sums[begins]) * _powers(len(codes) + 1, _inverse(_BASE_OF_BYTES))[begins]
    return _mixed(hashes), np.searchsorted(ends_of_rows, begins, side="right")


def _sums(values: Hashes, base: int) -> Hashes:
    """sums[i] is the polynomial over the first i values."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(len(values) + 1, base)[: len(values)], out=sums[1:])
    return sums


def _powers(count: int, base: int) -> Hashes:
    """base^0 ... modulo 2^64, at least `count` of them."""
    return _power_table(max(count, _CHUNK_BYTES + 2) if count <= _CHUNK_BYTES + 2 else 1 << count.bit_length(), base)


@lru_cache(maxsize=8)
def _power_table(count: int, base: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


@lru_cache
def _inverse(base: int) -> int:
    return pow(base, -1, 1 << 64)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread over all 64 bits: the polynomial's low bits depend on low bits only."""
    mixed: Any = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.asarray(mixed ^ (mixed >> np.uint64(29)), np.uint64)


def _letter_table() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for code in range(256):
        if _WORD.fullmatch(bytes([code])):
            table[code] = bytes([code]).lower()[0]
    return table


_LETTERS = _letter_table()
