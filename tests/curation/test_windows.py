"""Hashed word windows are what a plain reading of the words gives."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import curation.overlap.windows
from curation.overlap.windows import span_of, windows, words_of

TEXTS = st.lists(st.one_of(st.none(), st.text("abAB1 .,\n\t-äß漢\U0001f600", max_size=60)), max_size=12)


def plainly(texts: list[str | None], size: int) -> list[tuple[int, int, tuple[str, ...]]]:
    found = []
    for row, text in enumerate(texts):
        words = [word for word, _, _ in words_of(text or "")]
        for position in range(max(1, len(words) - size + 1) if words else 0):
            found.append((row, position, tuple(words[position : position + size])))
    return found


@settings(deadline=None)
@given(TEXTS, st.integers(1, 5))
def test_windows_are_those_of_a_plain_reading(texts: list[str | None], size: int) -> None:
    expected = plainly(texts, size)
    found = [row for piece in windows(pa.array(texts, pa.string()), size) for row in zip(*piece, strict=True)]
    assert [(int(row), int(position)) for _, row, position in found] == [place[:2] for place in expected]
    by_hash: dict[int, set[tuple[str, ...]]] = {}
    by_words: dict[tuple[str, ...], set[int]] = {}
    for (value, _, _), (_, _, words) in zip(found, expected, strict=True):
        by_hash.setdefault(int(value), set()).add(words)
        by_words.setdefault(words, set()).add(int(value))
    assert all(len(same) == 1 for same in by_hash.values())
    assert all(len(same) == 1 for same in by_words.values())


def test_the_size_of_pieces_changes_nothing(monkeypatch: object) -> None:
    texts = pa.chunked_array(
        [["one two three", "", "four five"], pa.array([], pa.string()), ["six", None, "one two three"]]
    )
    whole = [tuple(map(int, row)) for piece in windows(texts, 2) for row in zip(*piece, strict=True)]
    monkeypatch.setattr(curation.overlap.windows, "_CHUNK_BYTES", 5)  # type: ignore[attr-defined]
    assert [tuple(map(int, row)) for piece in windows(texts, 2) for row in zip(*piece, strict=True)] == whole
    assert [row for _, row, _ in whole] == [0, 0, 2, 3, 5, 5]


def test_a_slice_of_an_array_is_read_where_it_begins() -> None:
    array = pa.array(["left out", "a b", "c d e"]).slice(1)
    rows = [tuple(map(int, row[1:])) for piece in windows(array, 2) for row in zip(*piece, strict=True)]
    assert rows == [(0, 0), (1, 0), (1, 1)]


@given(st.text("ab ,é漢", max_size=40), st.integers(0, 5), st.integers(1, 4))
def test_a_span_is_a_piece_of_the_text(text: str, position: int, size: int) -> None:
    span = span_of(text, position, size)
    assert span in text
    assert [word for word, _, _ in words_of(span)] == [word for word, _, _ in words_of(text)][
        position : position + size
    ]
