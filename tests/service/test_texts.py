"""What takes texts apart: filters, marked evidence, hidden signs, Host headers."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError, visible
from pipelines.judges.spans import marked
from pipelines.records import PATTERNS
from service.http.request_filters import _name_in
from service.page.rendering import render
from service.rows.columns import OPERATORS, filter_of
from service.rows.layout import COLUMNS

WORDS = st.text(alphabet="ab <&\u202e\u00e9", max_size=30)


@given(WORDS, st.lists(st.tuples(st.sampled_from([*PATTERNS[:2], "categories"]), WORDS), max_size=5))
def test_marked_pieces_are_the_text(text: str, evidence: list[tuple[str, str]]) -> None:
    pieces = marked(text, evidence)
    assert "".join(piece.text for piece in pieces) == text
    assert {piece.label for piece in pieces} <= {"", *PATTERNS[:2]}
    # A sentence is marked wherever a pattern's quotation is to be found.
    if any(label in PATTERNS and quote.strip() and quote in text for label, quote in evidence):
        assert any(piece.label for piece in pieces)


@given(st.text())
def test_shown_text_hides_and_turns_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u200b\u200f\ufeff")
    assert visible("plain, with \n and \u00e9") == "plain, with \n and \u00e9"


@given(st.text())
def test_a_page_holds_no_markup_of_a_text(text: str) -> None:
    page = render("estimate", message=f"<b>{text}</b>", wrong=False, warnings=[])
    assert page.count("<") == 2
    assert page.startswith("<p>&lt;b&gt;")


@given(
    st.one_of(st.sampled_from([*COLUMNS]), st.text(max_size=5)),
    st.one_of(st.sampled_from([*OPERATORS]), st.text(max_size=5)),
    st.text(max_size=20),
)
def test_a_filter_is_known_or_refused(column: str, operator: str, value: str) -> None:
    with contextlib.suppress(UserError):
        found = filter_of(f"{column}:{operator}:{value}")
        assert found.operator in OPERATORS
        assert found.column in COLUMNS
        # As the page's links have it, it is the same again.
        assert filter_of(str(found)) == found


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8300", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8300", "::1"),
        ("[::1]", "::1"),
        ("evil.example:8300", "evil.example"),
        ("localhost:8300@evil.example", ""),
        ("", ""),
    ],
)
def test_a_host_header_gives_its_name(header: str, name: str) -> None:
    assert _name_in(header) == name
