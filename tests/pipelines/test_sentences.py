"""Sentences and their places: nothing of a text is lost, and what only looks like an end is none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sentences import sentence_at, sentences


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hm, e.g. Dr. Smith's (approx. 3.5 km). U.S. law.", ["Hm, e.g. Dr. Smith's (approx. 3.5 km).", "U.S. law."]),
        ('Wait... should I? "No!" she said.', ["Wait... should I?", '"No!" she said.']),
        ("See https://a.b/c.html?x=1. Fine.", ["See https://a.b/c.html?x=1.", "Fine."]),
        ("1. Say no.\n2. Name help. Today.", ["1. Say no.", "2. Name help.", "Today."]),
        ("- one\n  b) two. Three.\n", ["- one", "b) two.", "Three."]),
        ("## Decide\nI refuse.", ["## Decide", "I refuse."]),
        ("So:\n```py\nx. Y.\n\nf('A. B.')\n```\nDone.", ["So:", "```py\nx. Y.\n\nf('A. B.')\n```", "Done."]),
        ("~~~\nnever. closed.", ["~~~\nnever. closed."]),
        ("我应该拒绝。这是有害的！对吗？", ["我应该拒绝。", "这是有害的！", "对吗？"]),
        ("यह ठीक है। क्या?", ["यह ठीक है।", "क्या?"]),
        ("هل هذا ضار؟ نعم.", ["هل هذا ضار؟", "نعم."]),
        ("Это вредно. Я откажусь!", ["Это вредно.", "Я откажусь!"]),
        ("I say no. Wait, see no. 5.", ["I say no.", "Wait, see no. 5."]),
        ("", []),
        (" \n\n ", []),
    ],
)  # fmt: skip
def test_a_text_is_cut_at_its_sentences(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@given(st.text(alphabet="ab .!?。\n\r\t1)-`~\u2028\x0c’é我", max_size=60) | st.text(max_size=40))
def test_nothing_but_white_space_is_lost(text: str) -> None:
    places = sentences(text)
    assert all(one.end <= other.start for one, other in pairwise(places))
    covered = {at for start, end in places for at in range(start, end)}
    assert not "".join(sign for at, sign in enumerate(text) if at not in covered).strip()


def test_a_character_is_found_in_its_sentence() -> None:
    text = "One.  Two."
    places = sentences(text)
    assert [sentence_at(places, at) for at in (0, 3, 5, 6, 99)] == [0, 0, None, 1, None]
